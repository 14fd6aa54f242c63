"""UperNet over a DTM ViT-B/16: mmsegmentation's BEiT-B one, another backbone."""

norm_cfg = dict(type='SyncBN', requires_grad=True)

model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(512, 512),  # table 14
    ),
    backbone=dict(
        type='mmpretrain.DTMViT',
        arch='base',
        img_size=512,  # table 14; the tables are resized from 224's
        patch_size=16,
        use_rel_pos_bias=True,
        use_shared_rel_pos_bias=False,
        layer_scale_init_value=0.1,
        drop_path_rate=0.1,  # table 14
        out_type='featmap',
        out_indices=[3, 5, 7, 11],
        final_norm=False,
        # --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth, or
        # model.backbone.init_cfg=None for a random start.
        init_cfg=dict(type='Pretrained', checkpoint='', prefix='backbone.'),
    ),
    neck=dict(
        type='Feature2Pyramid',
        embed_dim=768,
        rescales=[4, 2, 1, 0.5],
        norm_cfg=norm_cfg,
    ),
    decode_head=dict(
        type='UPerHead',
        in_channels=[768, 768, 768, 768],
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6),
        # Not printed; the backbone's width, as for BEiT, BEiT v2 and MAE.
        channels=768,
        # Table 14's dropout "x" is read as the backbone's; mmsegmentation's heads.
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=dict(
        type='FCNHead',
        in_channels=768,
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=0.4),
    ),
    train_cfg=dict(),
    # The crops overlap by a third, as BEiT's and BEiT v2's; not printed.
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)),
)
