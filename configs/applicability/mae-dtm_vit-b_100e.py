"""MAE with a CLIP target and DTM, ViT-B/16, 100 epochs (table 3).

Hardware:  8 GPUs, 128 images each
Command:   tools/dist_train.sh configs/applicability/mae-dtm_vit-b_100e.py 8
Then:      configs/applicability/finetune_vit-b_100e_in1k.py
"""

_base_ = ['./mae_vit-b_100e.py']

model = dict(dtm=dict(morphing=dict(_delete_=True, type='BipartiteMorphing')))
