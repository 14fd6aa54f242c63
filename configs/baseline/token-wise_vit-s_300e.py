"""The token-wise baseline of DTM with ViT-S/16, 300 epochs.

Each online token meets its own target token; all else is DTM's.
Rows:      4: baseline, ViT-S
Stage:     pre-training
Then:      configs/finetune/dtm_vit-s_300e_in1k.py
Hardware:  8 GPUs, 128 images each
Command:   tools/dist_train.sh configs/baseline/token-wise_vit-s_300e.py 8
"""

_base_ = ['../dtm_vit-s_300e.py']

model = dict(morphing=dict(_delete_=True, type='IdentityMorphing'))
