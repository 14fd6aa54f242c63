"""Table 14's optimisation: 160K iterations of AdamW at a batch of 16."""

optim_wrapper = dict(
    # bfloat16 where the device has it, else float16 with a scaled loss.
    type='mmpretrain.MixedPrecisionOptimWrapper',
    optimizer=dict(
        type='AdamW',
        fused=True,
        lr=5e-5,  # table 14
        betas=(0.9, 0.999),  # table 14
        weight_decay=0.05,  # table 14; on weight matrices alone
    ),
    constructor='mmpretrain.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.75),  # table 14
)

param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-6,
        end=1500,  # table 14: warm-up iterations
        by_epoch=False,
    ),
    dict(
        type='PolyLR',
        power=1.0,  # table 14: linear ...
        eta_min=0.0,  # ... to zero
        begin=1500,
        by_epoch=False,
    ),
]

train_cfg = dict(
    type='ExactIterBasedTrainLoop',
    max_iters=160000,  # table 14
    val_interval=16000,
)

# --auto-scale-lr scales the rate from this batch to the actual one.
auto_scale_lr = dict(base_batch_size=16)
