"""The token-wise baseline of DTM with ViT-B/16, 300 epochs.

Each online token meets its own target token; all else is DTM's.
Rows:      4: baseline, ViT-B; 6: baseline; 7: baseline; 8: baseline; 11: baseline;
           figure 5: baseline
Stage:     pre-training
Then:      configs/finetune/dtm_vit-b_100e_in1k.py, configs/transfer/*.py
Hardware:  8 GPUs, 128 images each
Command:   tools/dist_train.sh configs/baseline/token-wise_vit-b_300e.py 8
"""

_base_ = ['../dtm_vit-b_300e.py']

model = dict(morphing=dict(_delete_=True, type='IdentityMorphing'))
