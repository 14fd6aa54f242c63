"""A pilot of DTM with ViT-B/16: 20 epochs, then k-NN and a linear probe.

For what the paper leaves open and a short run can tell apart, above all its
learning rate: docs/fidelity.md has the four readings of the grid below.
Rows:      beyond the paper
Stage:     pre-training
Then:      configs/finetune/dtm_vit-b_100e_in1k.py
Hardware:  8 GPUs, 128 images each
Data:      data/imagenet/{train,val}/<class>/*.JPEG
Command:   tools/dist_train.sh configs/beyond/pilot_vit-b_20e.py 8
Grid:      python tools/grid_search.py configs/beyond/pilot_vit-b_20e.py \
               --lr 1.5e-4 6e-4 7.5e-4 1.06e-3 --metric linear_top1 --gpus 8
"""

_base_ = ['../dtm_vit-b_300e.py', '../_base_/feature_probe.py']

custom_hooks = [*_base_.custom_hooks, _base_.feature_probe]

train_cfg = dict(max_epochs=20)
