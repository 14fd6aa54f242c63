"""What every segmentation run shares: default_runtime.py in mmseg's scope."""

custom_imports = dict(imports=['mmdtm.plugin'], allow_failed_imports=False)
default_scope = 'mmseg'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='mmpretrain.AtomicCheckpointHook',
        by_epoch=False,
        interval=16000,
        max_keep_ckpts=3,
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    run_record=dict(type='mmpretrain.RunRecordHook'),
)

# Classes must fit the heads before the first step.
custom_hooks = [
    dict(type='mmpretrain.DataCheckHook'),
    dict(type='mmpretrain.DeferredLogHook'),
    dict(type='mmpretrain.NonFiniteLossHook'),
    dict(type='mmpretrain.ThroughputHook'),
    dict(type='mmpretrain.WatchdogHook', timeout=1800),  # seconds without a step
    dict(type='mmpretrain.PreemptionHook'),  # saves when told to stop
]

# Several processes: buffers follow from the weights or from each process's own data,
# and gradients are reduced where they lie.
model_wrapper_cfg = dict(
    type='MMDistributedDataParallel',
    broadcast_buffers=False,
    gradient_as_bucket_view=True,
    find_unused_parameters=False,
)

env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)

vis_backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
visualizer = dict(type='SegLocalVisualizer', vis_backends=vis_backends)

log_processor = dict(by_epoch=False)
log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=0)
