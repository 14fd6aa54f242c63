"""The token-wise baseline of a teacher whose tokens disagree in space.

Hardware:  any CPU
Command:   tools/dist_train.sh examples/toy/configs/noise/token-wise_vit-toy.py 1
"""

_base_ = ['./dtm_vit-toy.py']

model = dict(morphing=dict(_delete_=True, type='IdentityMorphing'))
