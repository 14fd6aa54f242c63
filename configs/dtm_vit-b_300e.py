"""DTM pre-training of ViT-B/16 on ImageNet-1K, 300 epochs.

Rows:      4: DTM, ViT-B; 5: DTM, ViT-B; 5: DTM, ADE20K; 6: DTM; 7: DTM;
           8: DTM, dynamic; 11: DTM, bipartite matching; 12: ViT-B; figure 5: DTM
Stage:     pre-training
Then:      configs/finetune/dtm_vit-b_100e_in1k.py,
           configs/segmentation/upernet_dtm_vit-b_160k_ade20k-512x512.py,
           configs/transfer/*.py
Chosen:    docs/fidelity.md lists what the paper leaves open
Hardware:  8 GPUs, 128 images each
Data:      data/imagenet/train/<class>/*.JPEG
Command:   tools/dist_train.sh configs/dtm_vit-b_300e.py 8
Length:    --cfg-options train_cfg.max_epochs=100, as for figure 5c; the schedule
           follows
"""

_base_ = [
    './_base_/models/dtm_vit-b.py',
    './_base_/datasets/imagenet_dtm.py',
    './_base_/schedules/adamw_1024_300e.py',
    './_base_/default_runtime.py',
]
