"""Distillation of tokens merged in each layer of CLIP, ViT-B/16, 50 epochs.

The table cites ToMe (arXiv 2210.09461), and this merges as its section 3 does.
Rows:      2: layer-wise bipartite matching
Stage:     pre-training
Then:      configs/linear_probe/dtm_vit-b_50e_in1k.py
Chosen:    8 tokens merge in each of 12 blocks, so 100 of 196 are left; ToMe's
           r is constant, too, and the table prints none
Hardware:  8 GPUs, 128 images each
Command:   tools/dist_train.sh configs/distillation/layer-wise-bipartite_vit-b_50e.py 8
"""

_base_ = ['./dtm_vit-b_50e.py']

model = dict(
    target_generator=dict(
        type='LayerwiseMorphingGenerator',
        merging='bipartite',
        num_merged=8,  # r
        # ToMe: tokens are compared by the attention's keys, mean over heads ...
        match_keys=True,
        merge_before_mlp=True,  # ... merge between attention and MLP ...
        proportional_attention=True,  # ... and attend by size: + log(s)
    ),
    morphing=None,  # the teacher merges
)
