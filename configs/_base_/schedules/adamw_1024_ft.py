"""Table 13's optimisation at its ViT-B values: 100 epochs, 10 of warm-up."""

optim_wrapper = dict(
    # bfloat16 where the device has it, else float16 with a scaled loss.
    type='MixedPrecisionOptimWrapper',
    optimizer=dict(
        type='AdamW',
        fused=True,
        lr=5e-4,  # table 13: base learning rate, at batch 1024
        betas=(0.9, 0.999),  # table 13
        weight_decay=0.05,  # table 13; on weight matrices alone
    ),
    constructor='LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.6),  # table 13: 0.6 (S, B), 0.8 (L)
)

warm_up = dict(
    type='LinearLR',
    start_factor=1e-3,  # not printed
    end=10,  # table 13: warm-up epochs, 10 (S, B), 5 (L)
    by_epoch=True,
    convert_to_iter_based=True,
)
cosine = dict(
    type='CosineAnnealingLR',
    begin=10,  # to the end of training, whatever its length
    # To 1e-6 = 2e-3 * 5e-4, in every layer in proportion: 1e-6 itself is more
    # than the lowest layers' rate, which it would raise.
    eta_min_ratio=2e-3,
    by_epoch=True,
    convert_to_iter_based=True,
)
param_scheduler = [warm_up, cosine]

# Table 13: 300 (S), 100 (B), 50 (L).
train_cfg = dict(type='ExactEpochBasedTrainLoop', max_epochs=100, val_interval=1)

# --auto-scale-lr scales the rate from this batch to the actual one.
auto_scale_lr = dict(base_batch_size=1024)
