"""DTM with K-means instead of bipartite matching, 300 epochs.

Rows:      11: DTM, K-means
Stage:     pre-training
Then:      configs/finetune/dtm_vit-b_100e_in1k.py
Chosen:    1 to 14 iterations of Lloyd's algorithm, drawn as DTM's k; the paper
           calls the numbers constant for layer-wise K-means alone
Hardware:  8 GPUs, 128 images each
Command:   tools/dist_train.sh configs/ablation/kmeans_vit-b_300e.py 8
"""

_base_ = ['../dtm_vit-b_300e.py']

model = dict(
    morphing=dict(
        _delete_=True,
        type='KMeansMorphing',
        levels=2,
        num_clusters=(1, None),  # 1 to 196, drawn as DTM draws
        num_iters=(1, 14),  # drawn as DTM's k
    )
)
