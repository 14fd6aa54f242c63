"""UperNet with a DTM ConvNeXt-T on ADE20K, 160K iterations, 512x512.

Rows:      beyond the paper
Stage:     segmentation
Carried:   table 14's: schedule, drop path
Own:       the four stages instead of a pyramid, a decoder 512 wide and layer decay
           0.9, as mmsegmentation's UperNet with ConvNeXt
Hardware:  8 GPUs, 2 images each
Data:      data/ade/ADEChallengeData2016/{images,annotations}/{training,validation}
Command:   tools/dist_train.sh \
               configs/backbones/upernet_convnext-t_160k_ade20k-512x512.py 8 \
               --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
"""

_base_ = ['./upernet_swin-t_160k_ade20k-512x512.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.ConvNeXt',
        arch='tiny',
        drop_path_rate=0.1,
        out_indices=[0, 1, 2, 3],
        gap_before_final_norm=False,
        init_cfg=dict(type='Pretrained', checkpoint='', prefix='backbone.'),
    )
)
