"""UperNet with a DTM Swin-T on ADE20K, 160K iterations, 512x512.

Rows:      beyond the paper
Stage:     segmentation
Carried:   table 14's: schedule, drop path
Own:       the four stages instead of a pyramid, and a decoder 512 wide, as
           mmsegmentation's UperNet with Swin; layer decay 0.9, as in fine-tuning
Hardware:  8 GPUs, 2 images each
Data:      data/ade/ADEChallengeData2016/{images,annotations}/{training,validation}
Command:   tools/dist_train.sh \
               configs/backbones/upernet_swin-t_160k_ade20k-512x512.py 8 \
               --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
"""

_base_ = ['../segmentation/upernet_dtm_vit-s_160k_ade20k-512x512.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.SwinTransformer',
        arch='tiny',
        img_size=512,
        drop_path_rate=0.1,
        out_indices=[0, 1, 2, 3],
        pad_small_map=True,
        init_cfg=dict(type='Pretrained', checkpoint='', prefix='backbone.'),
    ),
    neck=None,
    decode_head=dict(in_channels=[96, 192, 384, 768], channels=512),
    auxiliary_head=dict(in_channels=384),
)

optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.9))
