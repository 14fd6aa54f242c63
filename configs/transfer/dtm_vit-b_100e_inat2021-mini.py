"""Transfer of a DTM ViT-B/16 to iNaturalist 2021-mini, from either row's checkpoint.

Rows:      7: iNat 2021-mini
Stage:     transfer
Chosen:    table 13 unchanged; the paper prints no grid (docs/transfer.md)
Hardware:  8 GPUs, 128 images each
Data:      data/inat2021/{train_mini/,val/,train_mini.json,val.json}
           (https://github.com/visipedia/inat_comp)
Command:   tools/dist_train.sh configs/transfer/dtm_vit-b_100e_inat2021-mini.py 8 \
               --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
Grid:      python tools/grid_search.py \
               configs/transfer/dtm_vit-b_100e_inat2021-mini.py \
               --lr 2.5e-4 5e-4 1e-3 --weight-decay 0.05 0.1 --gpus 8 \
               --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
"""

_base_ = ['./dtm_vit-b_100e_inat2018.py']

data_root = 'data/inat2021'

num_classes = 10000

model = dict(
    data_preprocessor=dict(num_classes=num_classes),  # of Mixup's soft labels
    head=dict(num_classes=num_classes),
)

val_set = dict(data_root=data_root, ann_file='val.json')
train_dataloader = dict(dataset=dict(data_root=data_root, ann_file='train_mini.json'))
val_dataloader = dict(dataset=val_set)
test_dataloader = dict(dataset=val_set)
