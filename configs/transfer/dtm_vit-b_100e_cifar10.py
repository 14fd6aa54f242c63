"""Transfer of a DTM ViT-B/16 to CIFAR-10, from either row's checkpoint.

Rows:      6: CIFAR-10
Stage:     transfer
Chosen:    table 13, with the batch and rate of configs/_base_/transfer_small.py;
           the paper prints no grid (docs/transfer.md)
Hardware:  1 GPU, 128 images
Data:      data/cifar/cifar-10-batches-py/{data_batch_1..5,test_batch} of
           cifar-10-python.tar.gz (https://www.cs.toronto.edu/~kriz/cifar.html)
Command:   python tools/train.py configs/transfer/dtm_vit-b_100e_cifar10.py \
               --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
Grid:      python tools/grid_search.py \
               configs/transfer/dtm_vit-b_100e_cifar10.py \
               --lr 1e-4 3e-4 1e-3 --weight-decay 0.05 0.1 --jobs 8 --gpus 1 \
               --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
"""

_base_ = ['../_base_/transfer_small.py']

data_root = 'data/cifar'

num_classes = 10

model = dict(
    data_preprocessor=dict(num_classes=num_classes),  # of Mixup's soft labels
    head=dict(num_classes=num_classes),
)

# The images are in memory, so no transform loads them.
train_pipeline = [
    step for step in _base_.train_pipeline if step.type != 'LoadWholeImage'
]
test_pipeline = [
    # All of the 32 x 32 pixels; chosen.
    dict(type='Resize', scale=224, interpolation='bicubic', backend='pillow'),
    dict(type='PackInputs'),
]

train_set = dict(
    type='OfficialCIFAR10', data_root=data_root, split='train', pipeline=train_pipeline
)
val_set = dict(
    type='OfficialCIFAR10',
    data_root=data_root,
    split='test',
    pipeline=test_pipeline,
    test_mode=True,  # a damaged image is an error, not skipped
)
train_dataloader = dict(dataset=dict(_delete_=True, **train_set))
val_dataloader = dict(dataset=dict(_delete_=True, **val_set))
test_dataloader = dict(dataset=dict(_delete_=True, **val_set))
