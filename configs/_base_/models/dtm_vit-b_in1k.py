"""ViT-B/16 with a linear classifier, starting from a DTM checkpoint."""

model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        type='ClsDataPreprocessor',
        num_classes=1000,  # Mixup's labels; the head's number, too
        mean=[123.675, 116.28, 103.53],  # as the student saw in pre-training
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
    ),
    backbone=dict(
        type='DTMViT',
        arch='base',
        img_size=224,  # table 13
        patch_size=16,
        use_rel_pos_bias=True,  # starts from its own table plus the shared one
        use_shared_rel_pos_bias=False,
        layer_scale_init_value=0.1,
        drop_path_rate=0.1,  # table 13: 0.1 (S, B), 0.2 (L)
        # The mean of the patch tokens, then a norm of its own.
        out_type='avg_featmap',
        final_norm=False,
        # --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth, or
        # model.backbone.init_cfg=None for a random start.
        init_cfg=dict(type='Pretrained', checkpoint='', prefix='backbone.'),
    ),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=768,
        loss=dict(
            type='LabelSmoothLoss',
            label_smooth_val=0.1,
            mode='original',  # table 13
        ),
        # Not printed; 0.02 * 0.001, as BEiT v2 fine-tunes.
        init_cfg=dict(type='TruncNormal', layer='Linear', std=2e-5),
    ),
    train_cfg=dict(
        augments=[
            # Table 13 prints "prob." 0.8 and 1.0, the usual recipe's alphas: each
            # batch gets one of the two, with even odds.
            dict(type='Mixup', alpha=0.8),
            dict(type='CutMix', alpha=1.0),
        ]
    ),
)
