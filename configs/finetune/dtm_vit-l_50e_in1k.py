"""Fine-tuning of a DTM ViT-L/16 on ImageNet-1K, 50 epochs (table 13).

Paper:     arXiv 2401.00254, section 5; compare table 5's fine-tuning column
Hardware:  8 GPUs, 128 images each
Data:      data/imagenet/{train,val}/<class>/*.JPEG
Command:   tools/dist_train.sh configs/finetune/dtm_vit-l_50e_in1k.py 8 \
               --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
Then:      tools/dist_test.sh configs/finetune/dtm_vit-l_50e_in1k.py \
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
_base_.param_scheduler[0].update(end=5)  # table 13
_base_.param_scheduler[1].update(begin=5, end=50, T_max=45)
param_scheduler = _base_.param_scheduler
