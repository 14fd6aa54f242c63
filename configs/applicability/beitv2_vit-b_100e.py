"""BEiT v2, ViT-B/16, 100 epochs.

mmpretrain's BEiT v2 (arXiv 2208.06366) with its recipe for 300 epochs,
shortened. The tokenizer is frozen in earnest: mmpretrain lets it train, and
saves it.
Rows:      3: BEiT v2
Stage:     pre-training
Then:      configs/finetune/dtm_vit-b_100e_in1k.py
Chosen:    the schedule; the paper prints the 100 epochs alone
Weights:   checkpoints/vqkd_encoder.pth, the tokenizer, from
           https://download.openmmlab.com/mmselfsup/1.x/target_generator_ckpt/
Hardware:  8 GPUs, 128 images each
Data:      data/imagenet/train/<class>/*.JPEG
Command:   tools/dist_train.sh configs/applicability/beitv2_vit-b_100e.py 8
"""

_base_ = [
    '../_base_/datasets/imagenet_dtm.py',
    '../_base_/schedules/adamw_1024_300e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='BEiTv2DTM',
    data_preprocessor=dict(
        type='DTMDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
    ),
    backbone=dict(
        type='BEiTPretrainViT',
        arch='base',
        img_size=224,
        patch_size=16,
        out_indices=[-4, -1],  # the early one for the neck
        final_norm=False,  # the neck's
        layer_scale_init_value=0.1,
        drop_path_rate=0.0,
        init_cfg=[
            dict(type='TruncNormal', std=0.02, layer='Linear'),
            dict(type='TruncNormal', std=0.02, layer='Conv2d'),
            dict(type='Constant', layer='LayerNorm', val=1.0, bias=0.0),
        ],
    ),
    neck=dict(
        type='BEiTV2Neck',
        num_layers=2,
        early_layers=9,
        backbone_arch='base',
        layer_scale_init_value=0.1,
    ),
    head=dict(
        type='BEiTV2Head',
        embed_dims=768,
        num_embed=8192,
        loss=dict(type='CrossEntropyLoss'),
    ),
    target_generator=dict(
        type='VQKDGenerator', checkpoint='checkpoints/vqkd_encoder.pth'
    ),
)

train_pipeline = [
    dict(type='LoadWholeImage'),
    _base_.random_crop,
    dict(type='RandomFlip', prob=0.5),
    dict(_base_.block_mask, mask_ratio=75 / 196),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

optim_wrapper = dict(optimizer=dict(lr=7.5e-4))  # 1.5e-3 at batch 2048
train_cfg = dict(max_epochs=100)  # table 3
