"""What the transfers to small data sets share: one GPU a run, table 13 otherwise.

The paper prints no grid for tables 6 and 7 (docs/transfer.md). Chosen: runs of
128 images on one GPU, so that a grid keeps several GPUs busy, and the middle of
the grid that the cards name.
"""

_base_ = ['../finetune/dtm_vit-b_100e_in1k.py']

optim_wrapper = dict(optimizer=dict(lr=3e-4))  # chosen, for batch 128
auto_scale_lr = dict(base_batch_size=128)  # images of one step, all processes
