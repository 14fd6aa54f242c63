"""The token-wise baseline of the small Swin: no morphing, all else is DTM's.

Hardware:  any CPU
Command:   python tools/train.py examples/toy/configs/token-wise_swin-toy.py
"""

_base_ = ['./dtm_swin-toy.py']

model = dict(morphing=dict(_delete_=True, type='IdentityMorphing'))
