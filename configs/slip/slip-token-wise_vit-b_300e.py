"""The token-wise baseline with targets of SLIP, ViT-B/16, 300 epochs.

Rows:      9: baseline, ViT-B
Stage:     pre-training
Then:      configs/finetune/dtm_vit-b_100e_in1k.py
Weights:   checkpoints/slip_base_100ep.pt (github.com/facebookresearch/SLIP)
Hardware:  8 GPUs, 128 images each
Command:   tools/dist_train.sh configs/slip/slip-token-wise_vit-b_300e.py 8
"""

_base_ = ['./slip-dtm_vit-b_300e.py']

model = dict(morphing=dict(_delete_=True, type='IdentityMorphing'))
