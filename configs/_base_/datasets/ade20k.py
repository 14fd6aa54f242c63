"""ADE20K, 150 classes, at 512x512 (table 14): mmsegmentation's own settings."""

data_root = 'data/ade/ADEChallengeData2016'

# Class 0 of the files is "other": it becomes 255, which no loss or metric sees,
# and the 150 classes become 0..149. The data set, mmsegmentation's ADE20KDataset
# with a check for missing files, says so to LoadAnnotations.
train_pipeline = [
    dict(type='mmpretrain.LoadWholeImage', imdecode_backend='cv2'),
    dict(type='LoadAnnotations'),
    dict(type='mmpretrain.CheckSegLabels'),
    dict(
        type='RandomResize',
        scale=(2048, 512),
        ratio_range=(0.5, 2.0),
        keep_ratio=True,
    ),
    dict(type='RandomCrop', crop_size=(512, 512), cat_max_ratio=0.75),  # table 14
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]

test_pipeline = [
    dict(type='mmpretrain.LoadWholeImage', imdecode_backend='cv2'),
    dict(type='Resize', scale=(2048, 512), keep_ratio=True),
    # After the resize: predictions are compared at the mask's own size.
    dict(type='LoadAnnotations'),
    dict(type='mmpretrain.CheckSegLabels'),
    dict(type='PackSegInputs'),
]

train_dataloader = dict(
    batch_size=2,  # table 14: 16 in all, on 8 GPUs
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='mmpretrain.CheckedADE20KDataset',
        data_root=data_root,
        data_prefix=dict(
            img_path='images/training', seg_map_path='annotations/training'
        ),
        pipeline=train_pipeline,
    ),
)

val_dataloader = dict(
    batch_size=1,  # images differ in size
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mmpretrain.CheckedADE20KDataset',
        data_root=data_root,
        data_prefix=dict(
            img_path='images/validation', seg_map_path='annotations/validation'
        ),
        pipeline=test_pipeline,
    ),
)
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])  # and mAcc, aAcc
val_cfg = dict(type='ValLoop')

test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict(type='TestLoop')
