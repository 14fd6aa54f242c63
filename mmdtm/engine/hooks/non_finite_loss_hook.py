"""Stops a run whose loss is no number any more."""

import functools
import json
from pathlib import Path

import torch
from mmengine.dist import all_reduce, get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner, find_latest_checkpoint
from mmpretrain.registry import HOOKS

from mmdtm.io import write_text


@HOOKS.register_module()
class NonFiniteLossHook(Hook):
    """Stop before a loss that is NaN or infinite changes the model.

    All processes stop in the same step, the weights and the last checkpoint
    stay as they are, and each process that had such a loss writes the images of
    the step to ``WORK_DIR/non_finite_loss_step<N>_rank<R>.json``. Gradients that
    overflow in float16 are no matter of this hook: the loss scaler skips such a
    step and goes on.

    The losses are looked at when their gradients are there, just before the
    optimizer steps: no process is then left waiting for another's gradients,
    gradient clipping waits for the device at that place anyway, and the
    micro-batches of accumulated gradients are judged together.
    """

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
        here = finite.all()
        everywhere = here.int()
        all_reduce(everywhere, 'min')
        if everywhere.item():
            return
        step = runner.iter + 1
        where = 'another process'
        if not here.item():
            file = Path(runner.work_dir) / (
                f'non_finite_loss_step{step}_rank{get_rank()}.json'
            )
            pairs = zip(finite.tolist(), batches, strict=False)
            bad = [images for ok, images in pairs if not ok]
            record = dict(
                step=step,
                epoch=runner.epoch + 1,
                rank=get_rank(),
                losses=[str(loss) for loss in losses.tolist()],
                img_paths=sum(bad, []),
            )
            write_text(file, json.dumps(record, indent=1))
            where = f'{losses.tolist()}; its images are listed in {file}'
        last = find_latest_checkpoint(runner.work_dir)
        raise FloatingPointError(
            f'The loss of step {step} is not finite ({where}). The model was not '
            f'updated. The last checkpoint is {last or "not there yet"}: resume from '
            'it with a lower learning rate or without mixed precision, or look at '
            'the images.'
        )
