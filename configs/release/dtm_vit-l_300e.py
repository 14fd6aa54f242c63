"""DTM ViT-L/16 as the authors' released code trains it, 300 epochs.

What differs from the paper: configs/release/dtm_vit-b_300e.py.
Rows:      beyond the paper, whose authors released other values
Stage:     pre-training
Then:      configs/finetune/dtm_vit-l_50e_in1k.py
Hardware:  8 GPUs, 128 images each
Command:   tools/dist_train.sh configs/release/dtm_vit-l_300e.py 8
"""

_base_ = ['./dtm_vit-b_300e.py']

model = dict(
    backbone=dict(
        arch='large',  # table 12
        layer_scale_init_value=1e-5,  # table 12
    )
)
