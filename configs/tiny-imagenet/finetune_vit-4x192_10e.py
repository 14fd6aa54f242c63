"""Fine-tuning on Tiny ImageNet: 100 labelled images of each of 200 classes, 10 epochs.

Table 13's recipe, shortened; crops and flips alone, since RandAugment, Mixup and
the like cost more in so few epochs than they bring.
Rows:      beyond the paper
Stage:     fine-tuning
Hardware:  1 GPU, or any CPU; 64 images
Data:      data/tiny-imagenet-200, as unpacked (docs/data.md)
Command:   tools/dist_train.sh configs/tiny-imagenet/finetune_vit-4x192_10e.py 1 \
               --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
Random:    --cfg-options model.backbone.init_cfg=None
Labels:    --cfg-options train_dataloader.dataset.share=0.02 train_cfg.max_epochs=40
           for 10 of a class (0.002: 1, 1: all 500); the schedule follows
"""

_base_ = [
    '../_base_/models/dtm_vit-b_in1k.py',
    '../_base_/datasets/tiny-imagenet_ft.py',
    '../_base_/schedules/adamw_1024_ft.py',
    '../_base_/default_runtime.py',
]

model = dict(
    data_preprocessor=dict(num_classes=200),
    backbone=dict(
        arch=dict(
            _delete_=True,
            embed_dims=192,
            num_layers=4,
            num_heads=3,
            feedforward_channels=768,
        ),
        img_size=64,
        patch_size=8,
        layer_scale_init_value=1.0,
        drop_path_rate=0.0,
    ),
    head=dict(
        num_classes=200,
        in_channels=192,
        # A head that starts near zero needs more steps than there are.
        init_cfg=dict(std=0.02),
    ),
    train_cfg=dict(_delete_=True),
)

optim_wrapper = dict(optimizer=dict(lr=1e-3), paramwise_cfg=dict(layer_decay_rate=0.75))
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(end=1)
param_scheduler[1].update(begin=1)
train_cfg = dict(max_epochs=10)
auto_scale_lr = dict(base_batch_size=64)

default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))
