"""K-means after each layer of the target encoder (table 11).

Chosen:    98 tokens are left after 12 blocks, as many as table 8's fixed
           number; the paper's constant numbers are not printed
Hardware:  8 GPUs, 128 images each
Command:   tools/dist_train.sh configs/ablation/layer-wise-kmeans_vit-b_100e.py 8
Then:      configs/finetune/dtm_vit-b_100e_in1k.py
"""

_base_ = ['./dtm_vit-b_100e.py']

model = dict(
    target_generator=dict(
        type='LayerwiseMorphingGenerator',
        merging='kmeans',
        num_merged=[9, 9, *[8] * 10],  # 98 of 196 tokens are left
    ),
    morphing=None,  # the teacher merges
)
