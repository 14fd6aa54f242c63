"""Transfer of a DTM ViT-B/16 to CIFAR-100, from either row's checkpoint.

Rows:      6: CIFAR-100
Stage:     transfer
Chosen:    table 13, with the batch and rate of configs/_base_/transfer_small.py;
           the paper prints no grid (docs/transfer.md)
Hardware:  1 GPU, 128 images
Data:      data/cifar/cifar-100-python/{train,test} of cifar-100-python.tar.gz
           (https://www.cs.toronto.edu/~kriz/cifar.html)
Command:   python tools/train.py configs/transfer/dtm_vit-b_100e_cifar100.py \
               --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
Grid:      python tools/grid_search.py \
               configs/transfer/dtm_vit-b_100e_cifar100.py \
               --lr 1e-4 3e-4 1e-3 --weight-decay 0.05 0.1 --jobs 8 --gpus 1 \
               --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
"""

_base_ = ['./dtm_vit-b_100e_cifar10.py']

num_classes = 100

model = dict(
    data_preprocessor=dict(num_classes=num_classes),  # of Mixup's soft labels
    head=dict(num_classes=num_classes),
)

files = dict(type='OfficialCIFAR100')
train_dataloader = dict(dataset=files)
val_dataloader = dict(dataset=files)
test_dataloader = dict(dataset=files)
