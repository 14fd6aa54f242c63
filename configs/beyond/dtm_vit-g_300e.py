"""DTM pre-training of ViT-g/14 on ImageNet-1K, 300 epochs.

40 layers of width 1408. CLIP ViT-B/16 looks at the same 16 x 16 patches, in images of
256 pixels. docs/performance.md says what memory it takes, and how processes share it.
Rows:      beyond the paper
Stage:     pre-training
Then:      configs/beyond/finetune_vit-g_50e_in1k.py
Chosen:    table 12's ViT-L
Hardware:  16 GPUs of 80 GB, 64 images each
Command:   NNODES=2 tools/dist_train.sh configs/beyond/dtm_vit-g_300e.py 8
"""

_base_ = ['./dtm_vit-h_300e.py']

model = dict(backbone=dict(arch='giant'))
