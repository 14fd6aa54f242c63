"""ImageNet-1K's training images, one masked crop each; no labels are read."""

data_root = 'data/imagenet'

# Appendix D: colour jitter before the crop. So it is, to the bit, but at the cost of
# the crop alone.
random_crop = dict(
    type='JitteredResizedCrop',
    color_jitter=dict(brightness=0.4, contrast=0.4, saturation=0.4),  # table 12
    scale=224,  # table 12
    # Not printed. Appendix D refers to BEiT v2, whose smallest crop is 0.2.
    crop_ratio_range=(0.2, 1.0),
    interpolation='bicubic',
    backend='pillow',
)
block_mask = dict(
    type='BlockMaskGenerator',
    input_size=14,  # 224 / 16
    mask_ratio=0.4,  # section 5: 78 of 196
    min_num_patches=16,  # BEiT v2's blocks, as the release
    min_aspect=0.3,
)
train_pipeline = [
    dict(type='LoadWholeImage'),  # a truncated file is an error, not grey
    random_crop,
    dict(type='RandomFlip', prob=0.5),  # in no table; BEiT v2's and the release's
    block_mask,
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=128,  # table 12: 1024 in all, on 8 GPUs
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    collate_fn=dict(type='masked_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='UnlabeledImages',  # skips and counts what cannot be read
        data_root=data_root,
        data_prefix='train',
        max_bad_fraction=0.01,
        pipeline=train_pipeline,
    ),
)
