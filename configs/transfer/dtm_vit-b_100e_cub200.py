"""Transfer of a DTM ViT-B/16 to CUB-200-2011, from either row's checkpoint.

Rows:      6: CUB-200
Stage:     transfer
Chosen:    table 13, with the batch and rate of configs/_base_/transfer_small.py;
           the paper prints no grid (docs/transfer.md)
Hardware:  1 GPU, 128 images
Data:      data/CUB_200_2011/{images/,images.txt,image_class_labels.txt,
           train_test_split.txt} of CUB_200_2011.tgz
           (https://www.vision.caltech.edu/datasets/cub_200_2011)
Command:   python tools/train.py configs/transfer/dtm_vit-b_100e_cub200.py \
               --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
Grid:      python tools/grid_search.py \
               configs/transfer/dtm_vit-b_100e_cub200.py \
               --lr 1e-4 3e-4 1e-3 --weight-decay 0.05 0.1 --jobs 8 --gpus 1 \
               --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
"""

_base_ = ['../_base_/transfer_small.py']

data_root = 'data/CUB_200_2011'

num_classes = 200

model = dict(
    data_preprocessor=dict(num_classes=num_classes),  # of Mixup's soft labels
    head=dict(num_classes=num_classes),
)

train_set = dict(
    type='OfficialCUB',
    data_root=data_root,
    split='train',
    pipeline=_base_.train_pipeline,
)
val_set = dict(
    type='OfficialCUB',
    data_root=data_root,
    split='test',
    pipeline=_base_.test_pipeline,
    test_mode=True,  # a damaged image is an error, not skipped
)
train_dataloader = dict(dataset=dict(_delete_=True, **train_set))
val_dataloader = dict(dataset=dict(_delete_=True, **val_set))
test_dataloader = dict(dataset=dict(_delete_=True, **val_set))
