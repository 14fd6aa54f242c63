"""Fine-tuning of a DTM ViT-S/16 with 4 registers on ImageNet-1K, 300 epochs.

Rows:      beyond the paper
Stage:     fine-tuning
Carried:   table 13's ViT-S: schedule, layer decay 0.6, drop path, augmentation,
           mean of the patch tokens
Own:       the architecture of configs/backbones/dtm_vit-s-reg4_300e.py
Hardware:  8 GPUs, 128 images each
Data:      data/imagenet/{train,val}/<class>/*.JPEG
Command:   tools/dist_train.sh configs/backbones/finetune_vit-s-reg4_300e_in1k.py 8 \
               --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
"""

_base_ = ['./finetune_eva02-s_300e_in1k.py']

model = dict(backbone=dict(model='vit_small_patch14_reg4_dinov2'))
