"""Tiny ImageNet for pre-training: masked crops of 64 pixels, and a probe an epoch."""

data_root = 'data/tiny-imagenet-200'

train_pipeline = [
    dict(type='LoadWholeImage'),
    dict(
        type='JitteredResizedCrop',
        color_jitter=dict(brightness=0.4, contrast=0.4, saturation=0.4),  # table 12
        scale=64,
        # Not ImageNet's 0.2: what is left of 64 pixels must stay an object.
        crop_ratio_range=(0.4, 1.0),
        interpolation='bicubic',
        backend='pillow',
    ),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='BlockMaskGenerator',
        input_size=8,  # 64 / 8
        mask_ratio=0.4,  # section 5: of 64 tokens 25
        min_num_patches=4,  # of 64, where ImageNet's blocks have 16 of 196
        min_aspect=0.3,
    ),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=128,
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    collate_fn=dict(type='masked_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='TinyImageNet', data_root=data_root, split='train', pipeline=train_pipeline
    ),
)

# Curves over the epochs: k-NN and linear probe of 50 training images a class.
probe_pipeline = [dict(type='LoadWholeImage'), dict(type='PackInputs')]
probe_dataloader = dict(
    batch_size=250,
    num_workers=0,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='TinyImageNet',
        data_root=data_root,
        split='train',
        share=0.1,
        test_mode=True,
        pipeline=probe_pipeline,
    ),
)
feature_probe = dict(
    type='FeatureProbeHook',
    interval=1,
    train_dataloader=probe_dataloader,
    val_dataloader=dict(
        probe_dataloader,
        dataset=dict(probe_dataloader['dataset'], split='val', share=1.0),
    ),
)
