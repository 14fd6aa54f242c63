"""DTM pre-training of a small ViT on the toy dataset, a minute or two on 2 cores.

The big configs' classes and pipeline at 64 pixels; ``make quickstart`` runs it.
Hardware:  any CPU
Data:      python examples/toy/draw_scenes.py
Teacher:   python examples/toy/train_clip.py
Command:   tools/dist_train.sh examples/toy/configs/dtm_vit-toy.py 2
Then:      finetune_vit-toy.py and upernet_vit-toy.py, beside this file
"""

_base_ = ['../../../configs/dtm_vit-b_300e.py']

model = dict(
    backbone=dict(
        # As wide and deep as the teacher, as ViT-B/16 is for CLIP's ViT-B/16.
        arch=dict(
            _delete_=True,
            embed_dims=128,
            num_layers=4,
            num_heads=4,
            feedforward_channels=512,
        ),
        img_size=64,
        patch_size=8,  # N = 64 tokens
        layer_scale_init_value=1.0,  # 0.1 holds so short a training back
    ),
    target_generator=dict(
        model='toy',
        pretrained='work_dirs/toy_clip/toy.safetensors',
        model_config='work_dirs/toy_clip/toy.json',
    ),
)

train_pipeline = _base_.train_pipeline
# Shapes must stay whole enough to be told apart.
train_pipeline[1].update(scale=64, crop_ratio_range=(0.4, 1.0))
train_pipeline[3].update(input_size=8, min_num_patches=4)
train_dataloader = dict(
    batch_size=16,  # 32 in all, on 2 processes
    num_workers=0,  # the model keeps all cores busy
    persistent_workers=False,
    dataset=dict(data_root='data/toy', pipeline=train_pipeline),
)

# The plain form, whose values README.md has.
optim_wrapper = dict(optimizer=dict(lr=2e-3, fused=False))
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(start_factor=1 / 150, end=1)
param_scheduler[1].update(begin=1, end=6, T_max=5)
train_cfg = dict(max_epochs=6)
auto_scale_lr = dict(base_batch_size=32)

default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(interval=6, max_keep_ckpts=1)
)
# Draws masks and groups into vis_data/vis_image, twice in 750 steps.
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='MorphingVisualHook', interval=375, side=160),
]
