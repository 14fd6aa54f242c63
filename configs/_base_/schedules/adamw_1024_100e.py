"""Table 12's optimisation in 100 epochs."""

_base_ = ['./adamw_1024_300e.py']

# Warm-up: not printed for 100 epochs; as table 13 has it.
_base_.param_scheduler[0].update(end=10)
_base_.param_scheduler[1].update(begin=10, end=100, T_max=90)
param_scheduler = _base_.param_scheduler

train_cfg = dict(max_epochs=100)
