"""DTM with ViT-B/16, 100 epochs (tables 8, 10 and 11, the row of DTM).

Chosen:    100 epochs; configs/_base_/dtm_vit-b_100e.py says why
Hardware:  8 GPUs, 128 images each
Command:   tools/dist_train.sh configs/ablation/dtm_vit-b_100e.py 8
Then:      configs/finetune/dtm_vit-b_100e_in1k.py
"""

_base_ = ['../_base_/dtm_vit-b_100e.py']
