"""Morphing without the dynamic part: always 98 of 196 tokens, 300 epochs.

Rows:      8: DTM, not dynamic
Stage:     pre-training
Then:      configs/finetune/dtm_vit-b_100e_in1k.py
Chosen:    k = 7 iterations of 14 merges, not printed: the middle of what DTM
           draws, and the release's (unused) default
Hardware:  8 GPUs, 128 images each
Command:   tools/dist_train.sh configs/ablation/fixed-98_vit-b_300e.py 8
"""

_base_ = ['../dtm_vit-b_300e.py']

model = dict(
    morphing=dict(
        levels=1,  # every level would be the same
        num_morphed=98,  # section 5.5: half of the tokens
        num_iters=7,
    )
)
