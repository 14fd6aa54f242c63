"""Table 12's optimisation in 50 epochs."""

_base_ = ['./adamw_1024_300e.py']

# Warm-up: not printed for 50 epochs; as table 13 has it.
_base_.param_scheduler[0].update(end=5)
_base_.param_scheduler[1].update(begin=5, end=50, T_max=45)
param_scheduler = _base_.param_scheduler

train_cfg = dict(max_epochs=50)
