"""Fixed morphing to half of the tokens of a teacher whose tokens disagree in space.

As table 8's row in ``configs/ablation/fixed-98_vit-b_300e.py``, for 64 tokens.
Hardware:  any CPU
Command:   tools/dist_train.sh examples/toy/configs/noise/fixed_vit-toy.py 1
"""

_base_ = ['./dtm_vit-toy.py']

model = dict(morphing=dict(levels=1, num_morphed=32, num_iters=7))
