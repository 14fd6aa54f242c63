"""Linear probe of a DTM ViT-B/16 on ImageNet-1K, 50 epochs.

Table 2 prints the 50 epochs and no recipe; this one is MAE's (arXiv 2111.06377,
appendix A.2), whose learning rate is known to transfer between features: a
BatchNorm without weights evens out their scale, LARS with a base rate of 0.1
per 256 images, no weight decay, crops and flips only. Batch and warm-up are
smaller than its 16384 and 10 of 90 epochs, for the shorter schedule. The
features are the mean of the patch tokens after the pre-trained norm, since DTM's
loss does not touch the class token; the norm that fine-tuning would learn evens
out their length.
Rows:      2: linear probe
Stage:     linear probe
Hardware:  8 GPUs, 512 images each; only the head trains
Data:      data/imagenet/{train,val}/<class>/*.JPEG
Command:   tools/dist_train.sh configs/linear_probe/dtm_vit-b_50e_in1k.py 8 \
               --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
"""

_base_ = ['../finetune/dtm_vit-b_100e_in1k.py']

model = dict(
    backbone=dict(
        frozen_stages=12,  # all of them
        drop_path_rate=0.0,
        final_norm=True,  # the pre-trained one
    ),
    neck=dict(type='ClsBatchNormNeck', input_features=768),
    head=dict(
        loss=dict(_delete_=True, type='CrossEntropyLoss'),
        init_cfg=dict(std=0.01),
    ),
    train_cfg=dict(_delete_=True),
)

train_pipeline = [
    dict(type='LoadWholeImage'),
    dict(
        type='RandomResizedCrop',
        scale=224,
        interpolation='bicubic',
        backend='pillow',
    ),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=512, dataset=dict(pipeline=train_pipeline))

optim_wrapper = dict(
    _delete_=True,
    type='MixedPrecisionOptimWrapper',
    # 0.1 * 4096 / 256
    optimizer=dict(type='LARS', lr=1.6, weight_decay=0.0, momentum=0.9),
)
param_scheduler = [
    dict(_base_.warm_up, end=5),
    dict(
        type='CosineAnnealingLR',
        begin=5,
        eta_min=0.0,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=50)
auto_scale_lr = dict(base_batch_size=4096)
