"""The token-wise baseline with targets of SLIP, ViT-S/16, 300 epochs.

Rows:      9: baseline, ViT-S
Stage:     pre-training
Then:      configs/finetune/dtm_vit-s_300e_in1k.py
Weights:   checkpoints/slip_base_100ep.pt (github.com/facebookresearch/SLIP)
Hardware:  8 GPUs, 128 images each
Command:   tools/dist_train.sh configs/slip/slip-token-wise_vit-s_300e.py 8
"""

_base_ = ['./slip-dtm_vit-s_300e.py']

model = dict(morphing=dict(_delete_=True, type='IdentityMorphing'))
