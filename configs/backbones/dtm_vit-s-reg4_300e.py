"""DTM pre-training of ViT-S/16 with 4 registers, 300 epochs.

timm's network of DINOv2. With pretrained=True it goes on from DINOv2's weights, which
timm resamples to these patches and this grid.
Rows:      beyond the paper
Stage:     pre-training
Carried:   table 12's ViT-S: schedule, batch, augmentation, masked share; CLIP as the
           teacher, and its morphing
Own:       register tokens, absolute positions, layer scale 1e-5; patches of 16
           pixels instead of 14, for the masks and the grid of ViT-S/16
Then:      configs/backbones/finetune_vit-s-reg4_300e_in1k.py,
           configs/backbones/upernet_vit-s-reg4_160k_ade20k-512x512.py
Hardware:  8 GPUs, 128 images each
Data:      data/imagenet/train/<class>/*.JPEG
Command:   tools/dist_train.sh configs/backbones/dtm_vit-s-reg4_300e.py 8
"""

_base_ = ['../dtm_vit-s_300e.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='MaskedTimmViT',
        model='vit_small_patch14_reg4_dinov2',
        img_size=224,
        patch_size=16,
        pretrained=False,  # True, or the path of a file: timm's weights as the start
    )
)
