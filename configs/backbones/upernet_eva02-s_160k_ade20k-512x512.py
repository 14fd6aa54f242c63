"""UperNet with a DTM EVA-02-S/16 on ADE20K, 160K iterations, 512x512.

Rows:      beyond the paper
Stage:     segmentation
Carried:   table 14's: schedule, layer decay 0.75, drop path; the decoder of ViT-S
Own:       the architecture of configs/backbones/dtm_eva02-s_300e.py
Hardware:  8 GPUs, 2 images each
Data:      data/ade/ADEChallengeData2016/{images,annotations}/{training,validation}
Command:   tools/dist_train.sh \
               configs/backbones/upernet_eva02-s_160k_ade20k-512x512.py 8 \
               --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
"""

_base_ = ['../segmentation/upernet_dtm_vit-s_160k_ade20k-512x512.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.TimmViT',
        model='eva02_small_patch14_224',
        img_size=512,  # positions are resized from 224's
        patch_size=16,
        dynamic_img_size=True,  # images whose shorter side is less than the crop
        dynamic_img_pad=True,
        drop_path_rate=0.1,
        out_type='featmap',
        out_indices=[3, 5, 7, 11],
        init_cfg=dict(type='Pretrained', checkpoint='', prefix='backbone.'),
    )
)
