"""UperNet with a DTM ViT-S/16 with 4 registers on ADE20K, 160K iterations, 512x512.

Rows:      beyond the paper
Stage:     segmentation
Carried:   table 14's: schedule, layer decay 0.75, drop path; the decoder of ViT-S
Own:       the architecture of configs/backbones/dtm_vit-s-reg4_300e.py
Hardware:  8 GPUs, 2 images each
Data:      data/ade/ADEChallengeData2016/{images,annotations}/{training,validation}
Command:   tools/dist_train.sh \
               configs/backbones/upernet_vit-s-reg4_160k_ade20k-512x512.py 8 \
               --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
"""

_base_ = ['./upernet_eva02-s_160k_ade20k-512x512.py']

model = dict(backbone=dict(model='vit_small_patch14_reg4_dinov2'))
