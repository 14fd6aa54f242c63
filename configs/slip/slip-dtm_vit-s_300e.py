"""DTM with targets of SLIP ViT-B/16, ViT-S/16, 300 epochs.

Targets are SLIP's patch tokens through its projector (appendix B).
Rows:      9: DTM, ViT-S
Stage:     pre-training
Then:      configs/finetune/dtm_vit-s_300e_in1k.py
Chosen:    SLIP's ViT-B/16 of 100 epochs; which of its files is not printed
Weights:   checkpoints/slip_base_100ep.pt (github.com/facebookresearch/SLIP)
Hardware:  8 GPUs, 128 images each
Command:   tools/dist_train.sh configs/slip/slip-dtm_vit-s_300e.py 8
"""

_base_ = ['./slip-dtm_vit-b_300e.py']

model = dict(backbone=dict(arch='small'))  # table 12
