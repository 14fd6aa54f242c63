"""Stops a run whose loss, or its gradients, are no numbers any more."""

import functools
import json
from pathlib import Path

import torch
from mmengine.dist import all_reduce, get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner, find_latest_checkpoint
from mmpretrain.registry import HOOKS

from mmdtm.io import write_text
from mmdtm.io.checkpoints import shorten


@HOOKS.register_module()
class NonFiniteLossHook(Hook):
    """Stop before a loss or a gradient that is NaN or infinite changes the model.

    All processes stop in the same step, the weights and the last checkpoint
    stay as they are, and each process that had such a loss writes the images of
    the step to ``WORK_DIR/non_finite_loss_step<N>_rank<R>.json``; where gradients
    alone are not finite, all write ``non_finite_gradient_...``. Gradients that
    overflow in float16 are left to the loss scaler, which skips such a step and goes
    on, until it has lowered its scale below ``MIN_SCALE``.

    Both are looked at just before the optimizer steps: no process is then left
    waiting for another's gradients, gradient clipping waits for the device at
    that place anyway, and the micro-batches of accumulated gradients are judged
    together.
    """

    # Of the loss scaler; half precision needs more than 1 where all is well.
    MIN_SCALE = 2.0**-10

    priority = 'VERY_LOW'  # the others have seen the batch by then

    def before_train(self, runner: Runner) -> None:
        """Come between the optimizer wrapper's backward pass and its step."""
        self._losses: list[torch.Tensor] = []
        self._batches: list[list[str]] = []  # paths
        wrapper = runner.optim_wrapper
        update_params, step = wrapper.update_params, wrapper.step

        @functools.wraps(update_params)
        def update_params_noting_loss(loss, *args, **kwargs):
            self._losses.append(loss.detach())
            return update_params(loss, *args, **kwargs)

        # Wrapped, as schedulers look for the mark they left on the step.
        @functools.wraps(step)
        def step_when_finite(**kwargs):
            self._check(runner)
            return step(**kwargs)

        wrapper.update_params = update_params_noting_loss
        wrapper.step = step_when_finite

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None):
        """Remember where the images came from, not the images."""
        samples = data_batch.get('data_samples') if isinstance(data_batch, dict) else []
        self._batches.append(
            [str(getattr(sample, 'img_path', '?')) for sample in samples or []]
        )

    def _check(self, runner: Runner) -> None:
        losses, batches = torch.stack(self._losses), self._batches
        self._losses, self._batches = [], []
        finite = losses.isfinite()
        gradients = self._check_gradients(runner, losses.device)
        here = finite.all(), torch.stack([*gradients.values()]).all()
        everywhere = torch.stack(here).int()
        all_reduce(everywhere, 'min')
        losses_finite, gradients_finite = everywhere.tolist()
        if losses_finite and gradients_finite:
            return
        step = runner.iter + 1
        what, where = 'loss', 'another process'
        if losses_finite:  # all processes have the same gradients
            what, bad = 'gradient', batches
            where = shorten(name for name, good in gradients.items() if not good)
        elif not here[0]:
            pairs = zip(finite.tolist(), batches, strict=False)
            where, bad = str(losses.tolist()), [names for ok, names in pairs if not ok]
        if where != 'another process':
            file = Path(runner.work_dir) / (
                f'non_finite_{what}_step{step}_rank{get_rank()}.json'
            )
            record = dict(
                step=step,
                epoch=runner.epoch + 1,
                rank=get_rank(),
                losses=[str(loss) for loss in losses.tolist()],
                img_paths=sum(bad, []),
            )
            try:
                write_text(file, json.dumps(record, indent=1))
                where += f'; its images are listed in {file}'
            except OSError as error:
                where += f'; its images cannot be listed: {error}'
        last = find_latest_checkpoint(runner.work_dir)
        raise FloatingPointError(
            f'The {what} of step {step} is not finite ({where}). The model was not '
            f'updated. The last checkpoint is {last or "not there yet"}: resume from '
            'it with a lower learning rate or without mixed precision, or look at '
            'the images.'
        )

    def _check_gradients(self, runner: Runner, device) -> dict[str, torch.Tensor]:
        """By parameter whether its gradient is finite; of all under a loss scaler."""
        scaler = getattr(runner.optim_wrapper, 'loss_scaler', None)
        if scaler is not None:
            good = torch.tensor(scaler.get_scale() >= self.MIN_SCALE, device=device)
            return {f'whatever the loss scale, down to {self.MIN_SCALE}': good}
        return {
            name: parameter.grad.isfinite().all()
            for name, parameter in runner.model.named_parameters()
            if parameter.grad is not None
        }
