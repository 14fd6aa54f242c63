"""ImageNet-1K for fine-tuning: table 13's augmentation, top-1 and top-5.

Parts of ImageNet keep its 1000 labels. For other folders in the same layout,
docs/finetuning.md shows the few lines.
"""

data_root = 'data/imagenet'

train_pipeline = [
    dict(type='LoadWholeImage'),
    dict(
        type='RandomResizedCrop',
        scale=224,  # table 13
        interpolation='bicubic',
        backend='pillow',
    ),
    dict(type='RandomFlip', prob=0.5),  # in no table; the usual recipe's
    dict(
        type='RandAugment',  # table 13: 9/0.5
        policies='timm_increasing',
        num_policies=2,
        total_level=10,
        magnitude_level=9,
        magnitude_std=0.5,
        # Pixels arrive as BGR, so does the fill: ImageNet's mean.
        hparams=dict(pad_val=[104, 116, 124], interpolation='bicubic'),
    ),
    dict(
        type='RandomErasing',
        erase_prob=0.25,  # table 13
        mode='rand',
        min_area_ratio=0.02,
        max_area_ratio=1 / 3,
        fill_color=[103.53, 116.28, 123.675],
        fill_std=[57.375, 57.12, 58.395],
    ),
    dict(type='PackInputs'),
]

test_pipeline = [
    dict(type='LoadWholeImage'),
    dict(
        type='ResizeEdge',
        scale=256,
        edge='short',
        interpolation='bicubic',
        backend='pillow',
    ),
    dict(type='CenterCrop', crop_size=224),  # table 13
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=128,  # table 13: 1024 in all, on 8 GPUs
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='ImageFolder',
        data_root=data_root,
        data_prefix='train',
        classes='imagenet-1k',
        pipeline=train_pipeline,
    ),
)

val_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ImageFolder',
        data_root=data_root,
        data_prefix='val',
        classes='imagenet-1k',
        test_mode=True,  # a damaged image is an error, not skipped
        pipeline=test_pipeline,
    ),
)
val_evaluator = dict(type='Accuracy', topk=(1, 5))
val_cfg = dict()

test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
