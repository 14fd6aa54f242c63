"""The token-wise baseline on the toy dataset: no morphing, all else is DTM's.

Hardware:  any CPU
Command:   tools/dist_train.sh examples/toy/configs/token-wise_vit-toy.py 2
"""

_base_ = ['./dtm_vit-toy.py']

model = dict(morphing=dict(_delete_=True, type='IdentityMorphing'))
