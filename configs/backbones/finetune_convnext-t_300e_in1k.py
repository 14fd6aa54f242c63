"""Fine-tuning of a DTM ConvNeXt-T on ImageNet-1K, 300 epochs.

Rows:      beyond the paper
Stage:     fine-tuning
Carried:   table 13's ViT-S: schedule, drop path, augmentation
Own:       layer decay 0.9, as ConvNeXt V2-T's; the final norm after the mean, which
           starts from that of the positions
Hardware:  8 GPUs, 128 images each
Data:      data/imagenet/{train,val}/<class>/*.JPEG
Command:   tools/dist_train.sh configs/backbones/finetune_convnext-t_300e_in1k.py 8 \
               --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
"""

_base_ = ['../finetune/dtm_vit-s_300e_in1k.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='ConvNeXt',
        arch='tiny',
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint='', prefix='backbone.'),
    ),
    head=dict(in_channels=768),
)

optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.9))
