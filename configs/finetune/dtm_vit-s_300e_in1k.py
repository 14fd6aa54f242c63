"""Fine-tuning of a DTM ViT-S/16 on ImageNet-1K, 300 epochs.

From any pre-training run of its size: tables 4, 5 and 9 follow it.
Rows:      13: ViT-S/16
Stage:     fine-tuning
Hardware:  8 GPUs, 128 images each
Data:      data/imagenet/{train,val}/<class>/*.JPEG
Command:   tools/dist_train.sh configs/finetune/dtm_vit-s_300e_in1k.py 8 \
               --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
Test:      tools/dist_test.sh configs/finetune/dtm_vit-s_300e_in1k.py \
               work_dirs/dtm_vit-s_300e_in1k/epoch_300.pth 8
"""

_base_ = ['./dtm_vit-b_100e_in1k.py']

model = dict(backbone=dict(arch='small'), head=dict(in_channels=384))

train_cfg = dict(max_epochs=300)  # table 13
