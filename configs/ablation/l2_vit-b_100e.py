"""DTM with the l2 distance, 100 epochs.

Rows:      10: l2
Stage:     pre-training
Then:      configs/finetune/dtm_vit-b_100e_in1k.py
Hardware:  8 GPUs, 128 images each
Command:   tools/dist_train.sh configs/ablation/l2_vit-b_100e.py 8
"""

_base_ = ['./dtm_vit-b_100e.py']

model = dict(head=dict(loss=dict(distance='l2')))
