"""Fine-tuning of a DTM ViT-L/16 on ImageNet-1K, 50 epochs.

From any pre-training run of its size: tables 4, 5 and 9 follow it.
Rows:      13: ViT-L/16
Stage:     fine-tuning
Hardware:  8 GPUs, 128 images each
Data:      data/imagenet/{train,val}/<class>/*.JPEG
Command:   tools/dist_train.sh configs/finetune/dtm_vit-l_50e_in1k.py 8 \
               --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
Test:      tools/dist_test.sh configs/finetune/dtm_vit-l_50e_in1k.py \
               work_dirs/dtm_vit-l_50e_in1k/epoch_50.pth 8
"""

_base_ = ['./dtm_vit-b_100e_in1k.py']

model = dict(
    backbone=dict(
        arch='large',
        layer_scale_init_value=1e-5,  # table 12
        drop_path_rate=0.2,  # table 13
    ),
    head=dict(in_channels=1024),
)

optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.8))  # table 13

train_cfg = dict(max_epochs=50)  # table 13
param_scheduler = [
    dict(_base_.warm_up, end=5),  # table 13
    dict(_base_.cosine, begin=5),
]
