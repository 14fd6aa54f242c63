"""No morphing, targets of SLIP ViT-B/16 (table 9).

Weights:   checkpoints/slip_base_100ep.pt (github.com/facebookresearch/SLIP)
Hardware:  8 GPUs, 128 images each
Command:   tools/dist_train.sh configs/ablation/slip-token-wise_vit-b_100e.py 8
Then:      configs/finetune/dtm_vit-b_100e_in1k.py
"""

_base_ = ['./slip-dtm_vit-b_100e.py']

model = dict(morphing=dict(_delete_=True, type='IdentityMorphing'))
