"""Fine-tuning of a plain ViT-B/16 from MAE or BYOL, 100 epochs.

The recipe of table 13 on the backbone that both pre-train: absolute positions,
no layer scale. BEiT v2's backbone is DTM's: configs/finetune/.
Rows:      3: fine-tuning of MAE and BYOL
Stage:     fine-tuning
Hardware:  8 GPUs, 128 images each
Data:      data/imagenet/{train,val}/<class>/*.JPEG
Command:   tools/dist_train.sh configs/applicability/finetune_vit-b_100e_in1k.py 8 \
               --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
"""

_base_ = ['../finetune/dtm_vit-b_100e_in1k.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='VisionTransformer',
        arch='base',
        img_size=224,  # table 13
        patch_size=16,
        drop_path_rate=0.1,  # table 13
        out_type='avg_featmap',
        final_norm=False,
        init_cfg=dict(
            type='Pretrained', checkpoint='PRETRAINED.pth', prefix='backbone.'
        ),
    )
)
