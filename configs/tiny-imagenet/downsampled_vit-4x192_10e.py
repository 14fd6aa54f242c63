"""Means of 2 x 2 tokens on Tiny ImageNet, as table 2's row; all else is DTM's.

Rows:      beyond the paper
Stage:     pre-training
Then:      configs/tiny-imagenet/finetune_vit-4x192_10e.py
Hardware:  1 GPU, or any CPU; 128 images
Command:   tools/dist_train.sh configs/tiny-imagenet/downsampled_vit-4x192_10e.py 1
"""

_base_ = ['./dtm_vit-4x192_10e.py']

model = dict(morphing=dict(_delete_=True, type='DownsampleMorphing', stride=2))
