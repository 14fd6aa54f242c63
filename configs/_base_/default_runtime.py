"""What every run shares: logging, checkpoints, environment."""

custom_imports = dict(imports=['mmdtm.plugin'], allow_failed_imports=False)
default_scope = 'mmpretrain'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=100),
    param_scheduler=dict(type='ParamSchedulerHook'),
    # The newest three, to resume from; the last epoch's is always kept.
    checkpoint=dict(type='AtomicCheckpointHook', interval=1, max_keep_ckpts=3),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    # run.json: what made the run; each checkpoint says which run it is from.
    run_record=dict(type='RunRecordHook'),
)

custom_hooks = [
    dict(type='DataCheckHook'),  # empty splits, classes that do not fit
    dict(type='DeferredLogHook'),  # waits for the device when the log is written
    dict(type='NonFiniteLossHook'),
    dict(type='ThroughputHook'),
    dict(type='WatchdogHook', timeout=1800),  # seconds without a step
    dict(type='PreemptionHook'),  # saves when told to stop
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
    cudnn_benchmark=True,  # every batch has the same shape
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)

vis_backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
visualizer = dict(type='UniversalVisualizer', vis_backends=vis_backends)

log_level = 'INFO'
load_from = None
resume = False

# The seed fixes the initialisation, the data order, crops, masks and all other draws,
# also of a resumed run. deterministic=True has GPUs repeat results to the bit, at a
# price in speed (docs/resume.md).
randomness = dict(seed=0)
