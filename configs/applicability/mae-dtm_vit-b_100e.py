"""MAE with a CLIP target and DTM, ViT-B/16, 100 epochs.

Rows:      3: MAE + CLIP + DTM
Stage:     pre-training
Then:      configs/applicability/finetune_vit-b_100e_in1k.py
Hardware:  8 GPUs, 128 images each
Command:   tools/dist_train.sh configs/applicability/mae-dtm_vit-b_100e.py 8
"""

_base_ = ['./mae_vit-b_100e.py']

model = dict(dtm=dict(morphing=dict(_delete_=True, type='BipartiteMorphing')))
