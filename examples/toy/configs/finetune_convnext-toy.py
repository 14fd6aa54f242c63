"""Fine-tuning of the small ConvNeXt on the toy dataset's classes, and its probe.

Hardware:  any CPU
Command:   python tools/train.py examples/toy/configs/finetune_convnext-toy.py \
               --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
Frozen:    python tools/evaluate_features.py \
               examples/toy/configs/finetune_convnext-toy.py PRETRAINED.pth
"""

_base_ = ['./finetune_vit-toy.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='ConvNeXt',
        arch=dict(depths=[1, 1, 2], channels=[48, 96, 192]),
        out_indices=[2],
        layer_scale_init_value=1.0,  # a small one holds so short a training back
        gap_before_final_norm=False,
        init_cfg=dict(type='Pretrained', checkpoint='', prefix='backbone.'),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(in_channels=192),
)
