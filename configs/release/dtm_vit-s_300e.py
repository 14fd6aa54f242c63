"""DTM ViT-S/16 as the authors' released code trains it, 300 epochs.

What differs from the paper: configs/release/dtm_vit-b_300e.py.
Rows:      beyond the paper, whose authors released other values
Stage:     pre-training
Then:      configs/finetune/dtm_vit-s_300e_in1k.py
Hardware:  8 GPUs, 128 images each
Command:   tools/dist_train.sh configs/release/dtm_vit-s_300e.py 8
"""

_base_ = ['./dtm_vit-b_300e.py']

model = dict(backbone=dict(arch='small'))  # table 12
