"""DTM with ViT-B/16, 100 epochs.

Rows:      10: cosine; figure 5: DTM
Stage:     pre-training
Then:      configs/finetune/dtm_vit-b_100e_in1k.py
Hardware:  8 GPUs, 128 images each
Command:   tools/dist_train.sh configs/ablation/dtm_vit-b_100e.py 8
"""

_base_ = ['../dtm_vit-b_300e.py']

train_cfg = dict(max_epochs=100)  # appendix C
