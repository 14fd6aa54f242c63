"""DTM pre-training of ConvNeXt-T, 300 epochs.

Rows:      beyond the paper
Stage:     pre-training
Carried:   table 12's ViT-S: schedule, batch, augmentation, masked share; CLIP as the
           teacher, and its morphing
Own:       stages to stride 32: masks on 7 x 7 positions, blocks of 4 and more, and
           2 x 2 tokens of the head for each
Then:      configs/backbones/finetune_convnext-t_300e_in1k.py,
           configs/backbones/upernet_convnext-t_160k_ade20k-512x512.py
Hardware:  8 GPUs, 128 images each
Data:      data/imagenet/train/<class>/*.JPEG
Command:   tools/dist_train.sh configs/backbones/dtm_convnext-t_300e.py 8
"""

_base_ = ['./dtm_swin-t_300e.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='MaskedConvNeXt',
        arch='tiny',
        img_size=224,
        drop_path_rate=0.0,  # table 12
    )
)
