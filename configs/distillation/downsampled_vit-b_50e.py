"""Distillation of downsampled CLIP tokens, ViT-B/16, 50 epochs.

Rows:      2: downsampling
Stage:     pre-training
Then:      configs/linear_probe/dtm_vit-b_50e_in1k.py
Chosen:    means of 2 x 2 tokens; not printed
Hardware:  8 GPUs, 128 images each
Command:   tools/dist_train.sh configs/distillation/downsampled_vit-b_50e.py 8
"""

_base_ = ['./dtm_vit-b_50e.py']

model = dict(morphing=dict(_delete_=True, type='DownsampleMorphing', stride=2))
