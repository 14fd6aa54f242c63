"""UperNet with a DTM ViT-L/16 on ADE20K, 160K iterations, 512x512.

Rows:      beyond the paper, whose tables 5 and 14 have ViT-B alone
Stage:     segmentation
Hardware:  8 GPUs, 2 images each
Command:   tools/dist_train.sh \
               configs/segmentation/upernet_dtm_vit-l_160k_ade20k-512x512.py 8 \
               --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
"""

_base_ = ['./upernet_dtm_vit-b_160k_ade20k-512x512.py']

model = dict(
    backbone=dict(
        arch='large',
        layer_scale_init_value=1e-5,  # table 12
        out_indices=[7, 11, 15, 23],
    ),
    neck=dict(embed_dim=1024),
    decode_head=dict(in_channels=[1024, 1024, 1024, 1024], channels=1024),
    auxiliary_head=dict(in_channels=1024),
)
