"""k-NN and a short linear probe every 10 epochs of pre-training.

A config takes it in with
    _base_ = ['./dtm_vit-b_300e.py', './_base_/feature_probe.py']
    custom_hooks = [*_base_.custom_hooks, _base_.feature_probe]
"""

probe_pipeline = [
    dict(type='LoadWholeImage'),
    dict(
        type='ResizeEdge',
        scale=256,
        edge='short',
        interpolation='bicubic',
        backend='pillow',
    ),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]

feature_probe = dict(
    type='FeatureProbeHook',
    interval=10,
    images_per_class=50,  # as many as the validation set has
    train_dataloader=dict(
        batch_size=128,
        num_workers=8,
        collate_fn=dict(type='default_collate'),
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(
            type='ImageFolder',
            data_root='data/imagenet',
            data_prefix='train',
            classes='imagenet-1k',
            test_mode=True,
            pipeline=probe_pipeline,
        ),
    ),
    val_dataloader=dict(
        batch_size=128,
        num_workers=8,
        collate_fn=dict(type='default_collate'),
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(
            type='ImageFolder',
            data_root='data/imagenet',
            data_prefix='val',
            classes='imagenet-1k',
            test_mode=True,
            pipeline=probe_pipeline,
        ),
    ),
)
