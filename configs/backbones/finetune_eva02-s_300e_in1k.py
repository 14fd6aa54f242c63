"""Fine-tuning of a DTM EVA-02-S/16 on ImageNet-1K, 300 epochs.

Rows:      beyond the paper
Stage:     fine-tuning
Carried:   table 13's ViT-S: schedule, layer decay 0.6, drop path, augmentation,
           mean of the patch tokens
Own:       the architecture of configs/backbones/dtm_eva02-s_300e.py
Hardware:  8 GPUs, 128 images each
Data:      data/imagenet/{train,val}/<class>/*.JPEG
Command:   tools/dist_train.sh configs/backbones/finetune_eva02-s_300e_in1k.py 8 \
               --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
"""

_base_ = ['../finetune/dtm_vit-s_300e_in1k.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='TimmViT',
        model='eva02_small_patch14_224',
        img_size=224,
        patch_size=16,
        drop_path_rate=0.1,
        out_type='avg_featmap',
        init_cfg=dict(type='Pretrained', checkpoint='', prefix='backbone.'),
    )
)
