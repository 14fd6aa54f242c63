"""DTM pre-training of EVA-02-S/16, 300 epochs.

timm's network, whose rotary positions are the published ones: mmpretrain's ViTEVA02
turns the two numbers of a pair by different angles.
Rows:      beyond the paper
Stage:     pre-training
Carried:   table 12's ViT-S: schedule, batch, augmentation, masked share; CLIP as the
           teacher, and its morphing
Own:       rotary positions, SwiGLU; patches of 16 pixels instead of 14, for the
           masks and the grid of ViT-S/16
Then:      configs/backbones/finetune_eva02-s_300e_in1k.py,
           configs/backbones/upernet_eva02-s_160k_ade20k-512x512.py
Hardware:  8 GPUs, 128 images each
Data:      data/imagenet/train/<class>/*.JPEG
Command:   tools/dist_train.sh configs/backbones/dtm_eva02-s_300e.py 8
"""

_base_ = ['../dtm_vit-s_300e.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='MaskedTimmViT',
        model='eva02_small_patch14_224',
        img_size=224,
        patch_size=16,
        pretrained=False,  # True, or the path of a file: timm's weights as the start
    )
)
