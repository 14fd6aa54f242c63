"""DTM with the smooth l1 distance, 100 epochs.

Rows:      10: smooth l1
Stage:     pre-training
Then:      configs/finetune/dtm_vit-b_100e_in1k.py
Chosen:    beta 2, the authors' release's; not printed
Hardware:  8 GPUs, 128 images each
Command:   tools/dist_train.sh configs/ablation/smooth-l1_vit-b_100e.py 8
"""

_base_ = ['./dtm_vit-b_100e.py']

model = dict(head=dict(loss=dict(distance='smooth_l1', beta=2.0)))
