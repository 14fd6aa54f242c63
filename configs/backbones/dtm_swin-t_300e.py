"""DTM pre-training of Swin-T, 300 epochs.

Rows:      beyond the paper
Stage:     pre-training
Carried:   table 12's ViT-S: schedule, batch, augmentation, masked share; CLIP as the
           teacher, and its morphing
Own:       stages to stride 32: masks on 7 x 7 positions, blocks of 4 and more, and
           2 x 2 tokens of the head for each
Then:      configs/backbones/finetune_swin-t_300e_in1k.py,
           configs/backbones/upernet_swin-t_160k_ade20k-512x512.py
Hardware:  8 GPUs, 128 images each
Data:      data/imagenet/train/<class>/*.JPEG
Command:   tools/dist_train.sh configs/backbones/dtm_swin-t_300e.py 8
"""

_base_ = ['../dtm_vit-s_300e.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='MaskedSwinTransformer',
        arch='tiny',
        img_size=224,
        drop_path_rate=0.0,  # table 12
    ),
    head=dict(grid_size=14),  # of the teacher's tokens
)

# A position is 32 x 32 pixels: 19 of 49 are masked.
block_mask = dict(_base_.block_mask, input_size=7, min_num_patches=4)
train_pipeline = [*_base_.train_pipeline[:-2], block_mask, _base_.train_pipeline[-1]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
