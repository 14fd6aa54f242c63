"""Morphing to always 32 of 64 tokens on Tiny ImageNet, as table 8's 98 of 196.

Rows:      beyond the paper
Stage:     pre-training
Then:      configs/tiny-imagenet/finetune_vit-4x192_10e.py
Hardware:  1 GPU, or any CPU; 128 images
Command:   tools/dist_train.sh configs/tiny-imagenet/fixed-32_vit-4x192_10e.py 1
"""

_base_ = ['./dtm_vit-4x192_10e.py']

model = dict(morphing=dict(levels=1, num_morphed=32, num_iters=7))
