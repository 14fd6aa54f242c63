"""Distillation of tokens merged in each layer of CLIP, 50 epochs (table 2).

Chosen:    98 tokens are left after 12 blocks, as in table 8; how many merge in
           each is not printed
Hardware:  8 GPUs, 128 images each
Command:   tools/dist_train.sh configs/distillation/layer-wise-bipartite_vit-b_50e.py 8
Then:      configs/linear_probe/dtm_vit-b_50e_in1k.py
"""

_base_ = ['./dtm_vit-b_50e.py']

model = dict(
    target_generator=dict(
        type='LayerwiseMorphingGenerator',
        merging='bipartite',
        num_merged=[9, 9, *[8] * 10],  # 98 of 196 tokens are left
    ),
    morphing=None,  # the teacher merges
)
