"""UperNet on the toy dataset: ten shapes and six grounds, ADE20K's layout.

The big configs' model, data pipeline and schedule, made small. Images are 96
pixels wide, half as much again as in pre-training, so that tables of relative
positions are resized as they are for ADE20K.
Hardware:  any CPU, a minute on one core
Command:   tools/dist_train.sh examples/toy/configs/upernet_vit-toy.py 2 \
               --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
Random:    --cfg-options model.backbone.init_cfg=None
"""

_base_ = ['../../../configs/segmentation/upernet_dtm_vit-b_160k_ade20k-512x512.py']

# Shapes, then grounds; label 0 of the files is ignored, as ADE20K's.
classes = (
    'arrow', 'circle', 'cross', 'flower', 'heart', 'moon', 'ring', 'square', 'star',
    'triangle', 'brick', 'grass', 'sand', 'snow', 'water', 'wood',
)  # fmt: skip
palette = [
    [51, 34, 136], [136, 204, 238], [68, 170, 153], [17, 119, 51], [204, 102, 119],
    [221, 204, 119], [170, 68, 153], [136, 34, 85], [153, 153, 51], [30, 30, 30],
    [236, 214, 206], [214, 232, 206], [244, 236, 214], [224, 226, 236],
    [206, 222, 238], [226, 214, 198],
]  # fmt: skip

norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    data_preprocessor=dict(size=(96, 96), test_cfg=dict(size_divisor=8)),
    backbone=dict(
        arch=dict(
            _delete_=True,
            embed_dims=128,
            num_layers=4,
            num_heads=4,
            feedforward_channels=512,
        ),
        img_size=96,
        patch_size=8,
        layer_scale_init_value=1.0,
        drop_path_rate=0.0,
        out_indices=[0, 1, 2, 3],
    ),
    neck=dict(embed_dim=128, rescales=[2, 1, 0.5, 0.25]),
    decode_head=dict(
        in_channels=[128, 128, 128, 128],
        channels=48,
        num_classes=16,
        norm_cfg=norm_cfg,
        # Grounds fill most of a scene, and so short a training would see nothing
        # else: of 96 x 96 pixels the 3500 with the highest loss count.
        sampler=dict(type='OHEMPixelSampler', min_kept=3500),
    ),
    auxiliary_head=dict(
        in_channels=128, channels=32, num_classes=16, norm_cfg=norm_cfg
    ),
    test_cfg=dict(_delete_=True, mode='whole'),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='mmpretrain.CheckSegLabels', num_classes=16),
    dict(
        type='RandomResize',
        scale=(96, 96),
        ratio_range=(0.75, 1.5),
        keep_ratio=True,
    ),
    dict(type='RandomCrop', crop_size=(96, 96), cat_max_ratio=0.95),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='mmpretrain.CheckSegLabels', num_classes=16),
    dict(type='PackSegInputs'),
]
dataset = dict(
    type='BaseSegDataset',
    data_root='data/toy',
    metainfo=dict(classes=classes, palette=palette),
    img_suffix='.jpg',
    seg_map_suffix='.png',
    reduce_zero_label=True,
)
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(**dataset, pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=16,  # images are of one size
    num_workers=0,
    persistent_workers=False,
    dataset=dict(**dataset, pipeline=test_pipeline),
)
test_dataloader = val_dataloader

optim_wrapper = dict(optimizer=dict(lr=3e-3, fused=False))
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(end=20)
param_scheduler[1].update(begin=20, end=400)
train_cfg = dict(max_iters=400, val_interval=400)

default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(interval=400, max_keep_ckpts=1)
)
