"""K-means after each layer of the target encoder, 300 epochs.

Rows:      11: layer-wise K-means
Stage:     pre-training
Then:      configs/finetune/dtm_vit-b_100e_in1k.py
Chosen:    98 clusters in each block, table 8's fixed number, so that the first
           block merges and the others find 98 tokens; 5 iterations. The paper has
           constant numbers of both, and prints none
Hardware:  8 GPUs, 128 images each
Command:   tools/dist_train.sh configs/ablation/layer-wise-kmeans_vit-b_300e.py 8
"""

_base_ = ['../dtm_vit-b_300e.py']

model = dict(
    target_generator=dict(
        type='LayerwiseMorphingGenerator',
        merging='kmeans',
        num_clusters=98,
        num_iters=5,
    ),
    morphing=None,  # the teacher merges
)
