"""Linear probe of a DTM ViT-B/16 on ImageNet-1K, 25 epochs.

The 50-epoch recipe at the length of table 1, which probes CLIP itself
(docs/analysis.md) rather than a student.
Rows:      beyond the paper
Stage:     linear probe
Hardware:  8 GPUs, 512 images each; only the head trains
Command:   tools/dist_train.sh configs/linear_probe/dtm_vit-b_25e_in1k.py 8 \
               --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
"""

_base_ = ['./dtm_vit-b_50e_in1k.py']

train_cfg = dict(max_epochs=25)
