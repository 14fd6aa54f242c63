"""Fine-tuning on the toy dataset's classes, half a minute on 2 cores.

Table 13's recipe, shortened; crops and flips alone, since RandAugment, Mixup and
the like cost more in so few epochs than they bring. It also names the data
and the backbone for k-NN and the linear probe.
Hardware:  any CPU
Command:   tools/dist_train.sh examples/toy/configs/finetune_vit-toy.py 2 \
               --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
Random:    --cfg-options model.backbone.init_cfg=None
Frozen:    python tools/evaluate_features.py examples/toy/configs/finetune_vit-toy.py \
               PRETRAINED.pth
"""

_base_ = ['../../../configs/finetune/dtm_vit-b_100e_in1k.py']

model = dict(
    data_preprocessor=dict(num_classes=10),
    backbone=dict(
        arch=dict(
            _delete_=True,
            embed_dims=128,
            num_layers=4,
            num_heads=4,
            feedforward_channels=512,
        ),
        img_size=64,
        patch_size=8,
        layer_scale_init_value=1.0,
        drop_path_rate=0.0,
    ),
    head=dict(
        num_classes=10,
        in_channels=128,
        # A head that starts near zero needs more steps than there are.
        init_cfg=dict(std=0.02),
    ),
    train_cfg=dict(_delete_=True),
)

train_pipeline = [
    dict(type='LoadWholeImage'),
    dict(
        type='RandomResizedCrop',
        scale=64,
        crop_ratio_range=(0.6, 1.0),
        interpolation='bicubic',
        backend='pillow',
    ),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadWholeImage'),
    # Scenes are square: no crop.
    dict(type='Resize', scale=64, interpolation='bicubic', backend='pillow'),
    dict(type='PackInputs'),
]

data_root = 'data/toy'
train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root=data_root, classes=None, pipeline=train_pipeline),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root=data_root, classes=None, pipeline=test_pipeline),
)
test_dataloader = val_dataloader

optim_wrapper = dict(
    optimizer=dict(lr=1e-3, fused=False),
    paramwise_cfg=dict(layer_decay_rate=0.75),
)
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(end=0.5)
param_scheduler[1].update(begin=0.5, end=3, T_max=2.5)
train_cfg = dict(max_epochs=3)
auto_scale_lr = dict(base_batch_size=32)

default_hooks = dict(logger=dict(interval=5), checkpoint=dict(max_keep_ckpts=1))
