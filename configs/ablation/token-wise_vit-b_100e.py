"""No morphing, 100 epochs (tables 8 and 11, the baseline).

Hardware:  8 GPUs, 128 images each
Command:   tools/dist_train.sh configs/ablation/token-wise_vit-b_100e.py 8
Then:      configs/finetune/dtm_vit-b_100e_in1k.py
"""

_base_ = ['./dtm_vit-b_100e.py']

model = dict(morphing=dict(_delete_=True, type='IdentityMorphing'))
