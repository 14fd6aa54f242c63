"""DTM with targets of SLIP ViT-B/16 (table 9).

Chosen:    SLIP's ViT-B/16 of 100 epochs; which of its files is not printed
Weights:   checkpoints/slip_base_100ep.pt (github.com/facebookresearch/SLIP)
Hardware:  8 GPUs, 128 images each
Command:   tools/dist_train.sh configs/ablation/slip-dtm_vit-b_100e.py 8
Then:      configs/finetune/dtm_vit-b_100e_in1k.py
"""

_base_ = ['./dtm_vit-b_100e.py']

model = dict(
    target_generator=dict(
        _delete_=True,
        type='SLIPGenerator',
        arch='base',
        checkpoint='checkpoints/slip_base_100ep.pt',
    )
)
