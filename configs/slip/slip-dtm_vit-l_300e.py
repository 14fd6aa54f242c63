"""DTM with targets of SLIP ViT-B/16, ViT-L/16, 300 epochs.

Targets are SLIP's patch tokens through its projector (appendix B).
Rows:      9: DTM, ViT-L
Stage:     pre-training
Then:      configs/finetune/dtm_vit-l_50e_in1k.py
Chosen:    SLIP's ViT-B/16 of 100 epochs; which of its files is not printed
Weights:   checkpoints/slip_base_100ep.pt (github.com/facebookresearch/SLIP)
Hardware:  8 GPUs, 128 images each
Command:   tools/dist_train.sh configs/slip/slip-dtm_vit-l_300e.py 8
"""

_base_ = ['./slip-dtm_vit-b_300e.py']

model = dict(backbone=dict(arch='large', layer_scale_init_value=1e-5))  # table 12
