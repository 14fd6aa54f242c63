"""Fine-tuning of a DTM ViT-B/16 on ImageNet-1K, 100 epochs.

From any pre-training run of its size: tables 3 to 5 and 8 to 11 follow it.
Rows:      13: ViT-B/16
Stage:     fine-tuning
Hardware:  8 GPUs, 128 images each
Data:      data/imagenet/{train,val}/<class>/*.JPEG
Command:   tools/dist_train.sh configs/finetune/dtm_vit-b_100e_in1k.py 8 \
               --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
Test:      tools/dist_test.sh configs/finetune/dtm_vit-b_100e_in1k.py \
               work_dirs/dtm_vit-b_100e_in1k/epoch_100.pth 8
Own data:  docs/finetuning.md
"""

_base_ = [
    '../_base_/models/dtm_vit-b_in1k.py',
    '../_base_/datasets/imagenet_ft.py',
    '../_base_/schedules/adamw_1024_ft.py',
    '../_base_/default_runtime.py',
]
