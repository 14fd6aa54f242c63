"""Transfer of a DTM ViT-B/16 to NABirds, from either row's checkpoint.

NABirds is inferred from the column's name, Birds, beside CUB-200.
Rows:      6: Birds
Stage:     transfer
Chosen:    table 13, with the batch and rate of configs/_base_/transfer_small.py;
           the paper prints no grid (docs/transfer.md)
Hardware:  1 GPU, 128 images
Data:      data/nabirds/{images/,images.txt,image_class_labels.txt,
           train_test_split.txt,classes.txt} of nabirds.tar.gz
           (https://dl.allaboutbirds.org/nabirds)
Command:   python tools/train.py configs/transfer/dtm_vit-b_100e_nabirds.py \
               --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
Grid:      python tools/grid_search.py \
               configs/transfer/dtm_vit-b_100e_nabirds.py \
               --lr 1e-4 3e-4 1e-3 --weight-decay 0.05 0.1 --jobs 8 --gpus 1 \
               --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
"""

_base_ = ['./dtm_vit-b_100e_cub200.py']

num_classes = 555

model = dict(
    data_preprocessor=dict(num_classes=num_classes),  # of Mixup's soft labels
    head=dict(num_classes=num_classes),
)

files = dict(type='NABirds', data_root='data/nabirds')
train_dataloader = dict(dataset=files)
val_dataloader = dict(dataset=files)
test_dataloader = dict(dataset=files)
