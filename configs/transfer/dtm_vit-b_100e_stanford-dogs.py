"""Transfer of a DTM ViT-B/16 to Stanford Dogs, from either row's checkpoint.

Rows:      6: Dogs
Stage:     transfer
Chosen:    table 13, with the batch and rate of configs/_base_/transfer_small.py;
           the paper prints no grid (docs/transfer.md)
Hardware:  1 GPU, 128 images
Data:      data/stanford_dogs/{Images/,train_list.mat,test_list.mat} of
           images.tar and lists.tar
           (http://vision.stanford.edu/aditya86/ImageNetDogs)
Command:   python tools/train.py configs/transfer/dtm_vit-b_100e_stanford-dogs.py \
               --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
Grid:      python tools/grid_search.py \
               configs/transfer/dtm_vit-b_100e_stanford-dogs.py \
               --lr 1e-4 3e-4 1e-3 --weight-decay 0.05 0.1 --jobs 8 --gpus 1 \
               --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
"""

_base_ = ['./dtm_vit-b_100e_cub200.py']

num_classes = 120

model = dict(
    data_preprocessor=dict(num_classes=num_classes),  # of Mixup's soft labels
    head=dict(num_classes=num_classes),
)

files = dict(type='StanfordDogs', data_root='data/stanford_dogs')
train_dataloader = dict(dataset=files)
val_dataloader = dict(dataset=files)
test_dataloader = dict(dataset=files)
