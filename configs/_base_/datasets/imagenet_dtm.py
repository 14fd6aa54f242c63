"""ImageNet-1K's training images, one masked crop each; no labels are read."""

data_root = 'data/imagenet'

train_pipeline = [
    dict(type='LoadWholeImage'),  # a truncated file is an error, not grey
    # Table 12: colour jitter 0.4, before the crop.
    dict(
        type='ColorJitter',
        brightness=0.4,
        contrast=0.4,
        saturation=0.4,
        backend='cv2',
    ),
    dict(
        type='RandomResizedCrop',
        scale=224,  # table 12
        crop_ratio_range=(0.08, 1.0),  # not printed; the release's default
        interpolation='bicubic',
        backend='pillow',
    ),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='BlockMaskGenerator',
        input_size=14,  # 224 / 16
        mask_ratio=0.4,  # section 5: 78 of 196
        min_num_patches=16,  # BEiT v2's blocks, as the release
        min_aspect=0.3,
    ),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=128,  # table 12: 1024 in all, on 8 GPUs
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='UnlabeledImages',  # skips and counts what cannot be read
        data_root=data_root,
        data_prefix='train',
        max_bad_fraction=0.01,
        pipeline=train_pipeline,
    ),
)
