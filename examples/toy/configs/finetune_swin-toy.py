"""Fine-tuning of the small Swin on the toy dataset's classes, and its probe.

Hardware:  any CPU
Command:   python tools/train.py examples/toy/configs/finetune_swin-toy.py \
               --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
Frozen:    python tools/evaluate_features.py \
               examples/toy/configs/finetune_swin-toy.py PRETRAINED.pth
"""

_base_ = ['./finetune_vit-toy.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='SwinTransformer',
        arch=dict(embed_dims=48, depths=[1, 1, 2], num_heads=[2, 4, 8]),
        img_size=64,
        window_size=4,
        out_indices=[2],
        drop_path_rate=0.0,
        init_cfg=dict(type='Pretrained', checkpoint='', prefix='backbone.'),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(in_channels=192),
)
