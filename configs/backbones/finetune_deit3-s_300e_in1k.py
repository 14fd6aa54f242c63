"""Fine-tuning of a DTM DeiT III-S/16 on ImageNet-1K, 300 epochs.

Rows:      beyond the paper
Stage:     fine-tuning
Carried:   table 13's ViT-S: schedule, layer decay 0.6, drop path, augmentation,
           mean of the patch tokens
Own:       the architecture of configs/backbones/dtm_deit3-s_300e.py
Hardware:  8 GPUs, 128 images each
Data:      data/imagenet/{train,val}/<class>/*.JPEG
Command:   tools/dist_train.sh configs/backbones/finetune_deit3-s_300e_in1k.py 8 \
               --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
"""

_base_ = ['../finetune/dtm_vit-s_300e_in1k.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='VisionTransformer',
        arch='deit-small',
        img_size=224,
        layer_scale_init_value=1e-4,
        drop_path_rate=0.1,
        out_type='avg_featmap',
        final_norm=False,
        init_cfg=dict(type='Pretrained', checkpoint='', prefix='backbone.'),
    )
)
