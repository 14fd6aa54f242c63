"""DTM with density peaks (DPC-kNN), 100 epochs.

Rows:      beyond the paper, whose section 2 names it
Stage:     pre-training
Then:      configs/finetune/dtm_vit-b_100e_in1k.py
Hardware:  8 GPUs, 128 images each
Command:   tools/dist_train.sh configs/beyond/dpc-knn_vit-b_100e.py 8
"""

_base_ = ['../ablation/dtm_vit-b_100e.py']

model = dict(
    morphing=dict(
        _delete_=True,
        type='DPCKNNMorphing',
        levels=2,
        num_clusters=(1, None),  # 1 to 196, drawn as DTM draws
        num_neighbors=5,
    )
)
