"""DTM on Tiny ImageNet: 64 tokens of 64 x 64 pixels, a ViT of 4 layers, 10 epochs.

At a size that two CPU cores or minutes of a GPU afford; docs/evidence.md has what came
out of it.
Rows:      beyond the paper
Stage:     pre-training
Then:      configs/tiny-imagenet/finetune_vit-4x192_10e.py
Hardware:  1 GPU, or any CPU; 128 images
Data:      data/tiny-imagenet-200, as unpacked (docs/data.md)
Teacher:   python tools/study/train_teacher.py
Command:   tools/dist_train.sh configs/tiny-imagenet/dtm_vit-4x192_10e.py 1
"""

_base_ = [
    '../_base_/models/dtm_vit-b.py',
    '../_base_/datasets/tiny-imagenet_dtm.py',
    '../_base_/schedules/adamw_1024_300e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(
        # As wide and deep as the teacher, as ViT-B/16 is for CLIP's ViT-B/16.
        arch=dict(
            _delete_=True,
            embed_dims=192,
            num_layers=4,
            num_heads=3,
            feedforward_channels=768,
        ),
        img_size=64,
        patch_size=8,  # N = 64 tokens
        layer_scale_init_value=1.0,  # 0.1 holds so short a training back
    ),
    target_generator=dict(
        model='clip',
        pretrained='work_dirs/tiny_clip/clip.safetensors',
        model_config='work_dirs/tiny_clip/clip.json',
    ),
    # N_m from 1..64, which is 1..N as in the paper; k from its 1..14.
)

# Settled for each arm by the same number of runs: docs/evidence.md.
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(end=1)
param_scheduler[1].update(begin=1)
train_cfg = dict(max_epochs=10)
auto_scale_lr = dict(base_batch_size=128)

default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))
custom_hooks = [*_base_.custom_hooks, _base_.feature_probe]
