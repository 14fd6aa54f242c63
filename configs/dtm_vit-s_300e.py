"""DTM pre-training of ViT-S/16 on ImageNet-1K, 300 epochs.

Rows:      4: DTM, ViT-S; 5: DTM, ViT-S; 12: ViT-S
Stage:     pre-training
Then:      configs/finetune/dtm_vit-s_300e_in1k.py
Hardware:  8 GPUs, 128 images each
Data:      data/imagenet/train/<class>/*.JPEG
Command:   tools/dist_train.sh configs/dtm_vit-s_300e.py 8
"""

_base_ = ['./dtm_vit-b_300e.py']

# Table 12: 12 layers, width 384, 6 heads, FFN 1536.
model = dict(backbone=dict(arch='small'))
