"""BYOL with DTM, ViT-B/16, 100 epochs.

DTM's loss between the online and the momentum encoder's patch tokens of the
same view is added to BYOL's between class tokens, with weight 1.
Rows:      3: BYOL + DTM
Stage:     pre-training
Then:      configs/applicability/finetune_vit-b_100e_in1k.py
Chosen:    how they join, since BYOL's target is its own momentum encoder, and two
           crops share no tokens; not printed
Hardware:  8 GPUs, 128 images each
Command:   tools/dist_train.sh configs/applicability/byol-dtm_vit-b_100e.py 8
"""

_base_ = ['./byol_vit-b_100e.py']

model = dict(
    dtm=dict(
        morphing=dict(type='BipartiteMorphing'),
        weight=1.0,  # not printed
    )
)
