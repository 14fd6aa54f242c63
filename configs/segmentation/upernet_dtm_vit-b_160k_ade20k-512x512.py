"""UperNet with a DTM ViT-B/16 on ADE20K, 160K iterations, 512x512.

Rows:      14: ViT-B/16
Stage:     segmentation
Hardware:  8 GPUs, 2 images each
Data:      data/ade/ADEChallengeData2016/{images,annotations}/{training,validation}
Command:   tools/dist_train.sh \
               configs/segmentation/upernet_dtm_vit-b_160k_ade20k-512x512.py 8 \
               --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
Test:      tools/dist_test.sh \
               configs/segmentation/upernet_dtm_vit-b_160k_ade20k-512x512.py \
               work_dirs/upernet_dtm_vit-b_160k_ade20k-512x512/iter_160000.pth 8
           With one process, --show-dir DIR draws the predictions over the images
Whole:     --cfg-options model.test_cfg.mode=whole \
               model.data_preprocessor.test_cfg.size_divisor=16, instead of
           sliding crops
Own ViT:   docs/segmentation.md shows the same recipe over another backbone
"""

_base_ = [
    '../_base_/models/upernet_dtm.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/adamw_16_160k.py',
    '../_base_/default_runtime_seg.py',
]
