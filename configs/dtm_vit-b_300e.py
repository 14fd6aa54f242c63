"""DTM pre-training of ViT-B/16 on ImageNet-1K, 300 epochs (table 12).

Paper:     arXiv 2401.00254, section 5
Then:      configs/finetune/dtm_vit-b_100e_in1k.py (table 13),
           configs/segmentation/upernet_dtm_vit-b_160k_ade20k-512x512.py (table 14)
Hardware:  8 GPUs, 128 images each
Data:      data/imagenet/train/<class>/*.JPEG
Command:   tools/dist_train.sh configs/dtm_vit-b_300e.py 8
Shorter:   an inherited config with _base_ = ['./dtm_vit-b_300e.py'] and the
           epochs of train_cfg and param_scheduler (docs/inherit.md)
"""

_base_ = [
    './_base_/models/dtm_vit-b.py',
    './_base_/datasets/imagenet_dtm.py',
    './_base_/schedules/adamw_1024_300e.py',
    './_base_/default_runtime.py',
]
