"""DTM on the toy dataset, of a teacher whose tokens disagree in space.

``examples/toy/noise_study.py`` runs it and the three beside it over kinds and
strengths of perturbation.
Hardware:  any CPU
Command:   tools/dist_train.sh examples/toy/configs/noise/dtm_vit-toy.py 1 \\
               --cfg-options model.target_generator.strength=1
"""

_base_ = ['../dtm_vit-toy.py']

model = dict(
    target_generator=dict(
        _delete_=True,
        type='PerturbedGenerator',
        teacher=_base_.model.target_generator,
        kind='independent',
        strength=0.0,
    )
)
train_dataloader = dict(batch_size=32)  # on 1 process
# 120 runs: mixed precision as on a GPU, and four epochs.
optim_wrapper = dict(dtype='bfloat16')
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(end=4, T_max=3)
train_cfg = dict(max_epochs=4)
default_hooks = dict(checkpoint=dict(interval=4))
custom_hooks = [hook for hook in _base_.custom_hooks if 'Visual' not in hook['type']]
