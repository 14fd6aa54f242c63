"""Token-wise distillation of CLIP, ViT-B/16, 50 epochs.

Rows:      2: token-wise
Stage:     pre-training
Then:      configs/linear_probe/dtm_vit-b_50e_in1k.py
Hardware:  8 GPUs, 128 images each
Command:   tools/dist_train.sh configs/distillation/token-wise_vit-b_50e.py 8
"""

_base_ = ['./dtm_vit-b_50e.py']

model = dict(morphing=dict(_delete_=True, type='IdentityMorphing'))
