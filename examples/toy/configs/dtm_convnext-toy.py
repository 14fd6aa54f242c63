"""DTM pre-training of a small ConvNeXt on the toy dataset.

Hardware:  any CPU
Command:   python tools/train.py examples/toy/configs/dtm_convnext-toy.py
"""

_base_ = ['./dtm_swin-toy.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='MaskedConvNeXt',
        arch=dict(depths=[1, 1, 2], channels=[48, 96, 192]),
        img_size=64,
        out_indices=[2],
        layer_scale_init_value=1.0,  # a small one holds so short a training back
    )
)
