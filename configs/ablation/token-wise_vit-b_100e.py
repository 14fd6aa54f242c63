"""The token-wise baseline with ViT-B/16, 100 epochs.

Rows:      figure 5: baseline
Stage:     pre-training
Then:      configs/finetune/dtm_vit-b_100e_in1k.py
Hardware:  8 GPUs, 128 images each
Command:   tools/dist_train.sh configs/ablation/token-wise_vit-b_100e.py 8
"""

_base_ = ['./dtm_vit-b_100e.py']

model = dict(morphing=dict(_delete_=True, type='IdentityMorphing'))
