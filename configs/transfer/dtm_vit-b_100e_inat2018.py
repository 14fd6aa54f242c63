"""Transfer of a DTM ViT-B/16 to iNaturalist 2018, from either row's checkpoint.

Rows:      7: iNat 2018
Stage:     transfer
Chosen:    table 13 unchanged; the paper prints no grid (docs/transfer.md)
Hardware:  8 GPUs, 128 images each
Data:      data/inat2018/{train_val2018/,train2018.json,val2018.json}
           (https://github.com/visipedia/inat_comp)
Command:   tools/dist_train.sh configs/transfer/dtm_vit-b_100e_inat2018.py 8 \
               --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
Grid:      python tools/grid_search.py \
               configs/transfer/dtm_vit-b_100e_inat2018.py \
               --lr 2.5e-4 5e-4 1e-3 --weight-decay 0.05 0.1 --gpus 8 \
               --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
"""

_base_ = ['../finetune/dtm_vit-b_100e_in1k.py']

data_root = 'data/inat2018'

num_classes = 8142

model = dict(
    data_preprocessor=dict(num_classes=num_classes),  # of Mixup's soft labels
    head=dict(num_classes=num_classes),
)

train_set = dict(
    type='INaturalist',
    data_root=data_root,
    ann_file='train2018.json',
    pipeline=_base_.train_pipeline,
)
val_set = dict(
    type='INaturalist',
    data_root=data_root,
    ann_file='val2018.json',
    pipeline=_base_.test_pipeline,
    test_mode=True,  # a damaged image is an error, not skipped
)
train_dataloader = dict(dataset=dict(_delete_=True, **train_set))
val_dataloader = dict(dataset=dict(_delete_=True, **val_set))
test_dataloader = dict(dataset=dict(_delete_=True, **val_set))
