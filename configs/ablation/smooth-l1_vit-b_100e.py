"""DTM with the smooth l1 distance (table 10).

Chosen:    beta 1, its usual value; the release uses 2
Hardware:  8 GPUs, 128 images each
Command:   tools/dist_train.sh configs/ablation/smooth-l1_vit-b_100e.py 8
Then:      configs/finetune/dtm_vit-b_100e_in1k.py
"""

_base_ = ['./dtm_vit-b_100e.py']

model = dict(head=dict(loss=dict(distance='smooth_l1')))
