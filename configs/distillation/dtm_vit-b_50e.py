"""Distillation of CLIP with DTM, ViT-B/16, 50 epochs.

Rows:      2: DTM
Stage:     pre-training
Then:      configs/linear_probe/dtm_vit-b_50e_in1k.py
Chosen:    the recipe; configs/_base_/distillation_vit-b_50e.py says why
Hardware:  8 GPUs, 128 images each
Command:   tools/dist_train.sh configs/distillation/dtm_vit-b_50e.py 8
"""

_base_ = ['../_base_/distillation_vit-b_50e.py']
