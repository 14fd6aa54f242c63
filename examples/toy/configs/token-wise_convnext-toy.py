"""The token-wise baseline of the small ConvNeXt: no morphing, all else is DTM's.

Hardware:  any CPU
Command:   python tools/train.py examples/toy/configs/token-wise_convnext-toy.py
"""

_base_ = ['./dtm_convnext-toy.py']

model = dict(morphing=dict(_delete_=True, type='IdentityMorphing'))
