"""Distillation of CLIP into ViT-B/16 in 50 epochs, with DTM.

The student sees the whole image. Table 2 prints 50 epochs of ViT-B/16 and a
linear probe of 50 more, and no recipe: the optimisation, its 10 epochs of
warm-up and the augmentation are those of pre-training (table 12), so that the
mask is all that goes.
"""

_base_ = [
    './models/dtm_vit-b.py',
    './datasets/imagenet_dtm.py',
    './schedules/adamw_1024_300e.py',
    './default_runtime.py',
]

model = dict(
    type='DTMDistillation',
    # No mask token; the tokens that DTMPretrainViT gives.
    backbone=dict(type='DTMViT', out_type='raw', final_norm=True),
)

train_pipeline = [
    step for step in _base_.train_pipeline if step.type != 'BlockMaskGenerator'
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

train_cfg = dict(max_epochs=50)  # table 2
