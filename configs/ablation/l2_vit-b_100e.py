"""DTM with the l2 distance (table 10).

Hardware:  8 GPUs, 128 images each
Command:   tools/dist_train.sh configs/ablation/l2_vit-b_100e.py 8
Then:      configs/finetune/dtm_vit-b_100e_in1k.py
"""

_base_ = ['./dtm_vit-b_100e.py']

model = dict(head=dict(loss=dict(distance='l2')))
