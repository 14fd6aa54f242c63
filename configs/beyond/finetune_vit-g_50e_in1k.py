"""Fine-tuning of a DTM ViT-g/14 on ImageNet-1K, 50 epochs.

Rows:      beyond the paper
Stage:     fine-tuning
Chosen:    table 13's ViT-L
Hardware:  16 GPUs of 80 GB, 64 images each
Data:      data/imagenet/{train,val}/<class>/*.JPEG
Command:   NNODES=2 tools/dist_train.sh configs/beyond/finetune_vit-g_50e_in1k.py 8 \
               --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
Test:      tools/dist_test.sh configs/beyond/finetune_vit-g_50e_in1k.py \
               work_dirs/finetune_vit-g_50e_in1k/epoch_50.pth 8
"""

_base_ = ['../finetune/dtm_vit-l_50e_in1k.py']

model = dict(
    backbone=dict(arch='giant', patch_size=14, with_cp=True),
    head=dict(in_channels=1408),
)

train_dataloader = dict(batch_size=64)
