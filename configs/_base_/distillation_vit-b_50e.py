"""Distillation of CLIP into ViT-B/16 in 50 epochs (table 2), with DTM.

The student sees the whole image. Table 2 prints 50 epochs of ViT-B/16 and a
linear probe of 50 more, and no recipe: the optimisation and the augmentation
are those of pre-training (table 12), so that the mask is all that goes.
"""

_base_ = [
    './models/dtm_vit-b.py',
    './datasets/imagenet_dtm.py',
    './schedules/adamw_1024_50e.py',
    './default_runtime.py',
]

model = dict(
    type='DTMDistillation',
    # No mask token; the tokens that DTMPretrainViT gives.
    backbone=dict(type='DTMViT', out_type='raw', final_norm=True),
)

_base_.train_pipeline.pop(4)  # BlockMaskGenerator
train_dataloader = dict(dataset=dict(pipeline=_base_.train_pipeline))
