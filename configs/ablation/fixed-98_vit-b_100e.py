"""Morphing without the dynamic part: always 98 of 196 tokens (table 8).

Chosen:    k = 7 iterations of 14 merges, the middle of what DTM draws; not
           printed
Hardware:  8 GPUs, 128 images each
Command:   tools/dist_train.sh configs/ablation/fixed-98_vit-b_100e.py 8
Then:      configs/finetune/dtm_vit-b_100e_in1k.py
"""

_base_ = ['./dtm_vit-b_100e.py']

model = dict(
    morphing=dict(
        levels=1,  # every level would be the same
        num_morphed=98,  # table 8
        num_iters=7,
    )
)
