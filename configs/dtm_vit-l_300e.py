"""DTM pre-training of ViT-L/16 on ImageNet-1K, 300 epochs.

Rows:      4: DTM, ViT-L; 5: DTM, ViT-L; 12: ViT-L
Stage:     pre-training
Then:      configs/finetune/dtm_vit-l_50e_in1k.py
Hardware:  8 GPUs, 128 images each
Data:      data/imagenet/train/<class>/*.JPEG
Command:   tools/dist_train.sh configs/dtm_vit-l_300e.py 8
"""

_base_ = ['./dtm_vit-b_300e.py']

model = dict(
    backbone=dict(
        arch='large',  # table 12: 24 layers, width 1024, 16 heads, FFN 4096
        layer_scale_init_value=1e-5,  # table 12
    )
)
