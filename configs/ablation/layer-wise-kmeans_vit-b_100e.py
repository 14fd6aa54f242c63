"""K-means after each layer of the target encoder (table 11).

The paper says "constant numbers of clusters and iterations" and prints none.
Chosen:    98 clusters in each block, table 8's fixed number, so that the first
           block merges and the others find 98 tokens; 5 iterations
Hardware:  8 GPUs, 128 images each
Command:   tools/dist_train.sh configs/ablation/layer-wise-kmeans_vit-b_100e.py 8
Then:      configs/finetune/dtm_vit-b_100e_in1k.py
"""

_base_ = ['./dtm_vit-b_100e.py']

model = dict(
    target_generator=dict(
        type='LayerwiseMorphingGenerator',
        merging='kmeans',
        num_clusters=98,
        num_iters=5,
    ),
    morphing=None,  # the teacher merges
)
