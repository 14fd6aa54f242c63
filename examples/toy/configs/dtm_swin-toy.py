"""DTM pre-training of a small Swin on the toy dataset.

Three stages, to stride 16: 4 x 4 positions, each with 2 x 2 tokens of the teacher.
Hardware:  any CPU
Command:   python tools/train.py examples/toy/configs/dtm_swin-toy.py
"""

_base_ = ['./dtm_vit-toy.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='MaskedSwinTransformer',
        arch=dict(embed_dims=48, depths=[1, 1, 2], num_heads=[2, 4, 8]),
        img_size=64,
        window_size=4,
        out_indices=[2],
        drop_path_rate=0.0,
    ),
    head=dict(grid_size=8),
)

train_pipeline = _base_.train_pipeline
train_pipeline[3].update(input_size=4, min_num_patches=1)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
