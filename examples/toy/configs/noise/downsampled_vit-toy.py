"""Means of 2 x 2 tokens of a teacher whose tokens disagree in space.

Hardware:  any CPU
Command:   tools/dist_train.sh examples/toy/configs/noise/downsampled_vit-toy.py 1
"""

_base_ = ['./dtm_vit-toy.py']

model = dict(morphing=dict(_delete_=True, type='DownsampleMorphing', stride=2))
