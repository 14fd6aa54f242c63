"""BYOL with ViT-B/16, 100 epochs.

mmpretrain's BYOL (arXiv 2006.07733) on the class token of a ViT. BYOL's own
recipe is a ResNet's; the optimizer and the projector's depth are MoCo v3's for
ViT-B (arXiv 2104.02057), which trains the same pair of networks. As in both
papers, the rate falls to 0, and no gradient is clipped.
Rows:      3: BYOL
Stage:     pre-training
Then:      configs/applicability/finetune_vit-b_100e_in1k.py
Chosen:    all of the recipe; the paper prints the 100 epochs alone. The
           momentum starts at 0.99, as mmpretrain has it for short schedules; 10
           epochs of warm-up are BYOL's and DTM's
Hardware:  8 GPUs, 128 images each
Data:      data/imagenet/train/<class>/*.JPEG
Command:   tools/dist_train.sh configs/applicability/byol_vit-b_100e.py 8
"""

_base_ = [
    '../_base_/datasets/imagenet_dtm.py',
    '../_base_/schedules/adamw_1024_300e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='BYOLDTM',
    base_momentum=0.01,
    data_preprocessor=dict(
        type='SelfSupDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
    ),
    backbone=dict(
        type='VisionTransformer',
        arch='base',
        img_size=224,
        patch_size=16,
        out_type='raw',
    ),
    neck=dict(
        type='NonLinearNeck',
        in_channels=768,
        hid_channels=4096,
        out_channels=256,
        num_layers=3,
        with_bias=True,
        with_last_bn=False,
        with_avg_pool=False,
        norm_cfg=dict(type='BN1d'),
    ),
    head=dict(
        type='LatentPredictHead',
        predictor=dict(
            type='NonLinearNeck',
            in_channels=256,
            hid_channels=4096,
            out_channels=256,
            num_layers=2,
            with_bias=True,
            with_last_bn=False,
            with_avg_pool=False,
            norm_cfg=dict(type='BN1d'),
        ),
        loss=dict(type='CosineSimilarityLoss'),
    ),
)

sync_bn = 'torch'  # statistics of the whole batch, over all GPUs

# The two views of BYOL: the first always blurred, the second solarised at times.
view_1 = [
    dict(
        type='RandomResizedCrop',
        scale=224,
        crop_ratio_range=(0.08, 1.0),
        interpolation='bicubic',
        backend='pillow',
    ),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='RandomApply',
        transforms=[
            dict(
                type='ColorJitter',
                brightness=0.4,
                contrast=0.4,
                saturation=0.2,
                hue=0.1,
            )
        ],
        prob=0.8,
    ),
    dict(
        type='RandomGrayscale',
        prob=0.2,
        keep_channels=True,
        channel_weights=(0.114, 0.587, 0.2989),
    ),
    dict(
        type='GaussianBlur',
        magnitude_range=(0.1, 2.0),
        magnitude_std='inf',
        prob=1.0,
    ),
]
view_2 = [
    *view_1[:4],
    dict(
        type='GaussianBlur',
        magnitude_range=(0.1, 2.0),
        magnitude_std='inf',
        prob=0.1,
    ),
    dict(type='Solarize', thr=128, prob=0.2),
]
train_pipeline = [
    dict(type='LoadWholeImage'),
    dict(type='MultiView', num_views=[1, 1], transforms=[view_1, view_2]),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

# MoCo v3: 1.5e-4 per 256 images, betas of AdamW, weight decay 0.1.
optim_wrapper = dict(
    optimizer=dict(lr=6e-4, betas=(0.9, 0.999), weight_decay=0.1), clip_grad=None
)
param_scheduler = [_base_.warm_up, dict(_base_.cosine, eta_min=0.0)]
train_cfg = dict(max_epochs=100)  # table 3
