"""DTM pre-training of DeiT III-S/16, 300 epochs.

mmpretrain's plain ViT with layer scale; its class DeiT3 never trains its second norms.
Rows:      beyond the paper
Stage:     pre-training
Carried:   table 12's ViT-S: schedule, batch, augmentation, masked share; CLIP as the
           teacher, and its morphing
Own:       absolute positions, a bias on keys, layer scale 1e-4
Then:      configs/backbones/finetune_deit3-s_300e_in1k.py,
           configs/backbones/upernet_deit3-s_160k_ade20k-512x512.py
Hardware:  8 GPUs, 128 images each
Data:      data/imagenet/train/<class>/*.JPEG
Command:   tools/dist_train.sh configs/backbones/dtm_deit3-s_300e.py 8
"""

_base_ = ['../dtm_vit-s_300e.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='MaskedVisionTransformer',
        arch='deit-small',
        img_size=224,
        layer_scale_init_value=1e-4,  # DeiT III's
    )
)
