"""Stops a run whose loss or gradients are not finite."""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.dist import all_reduce, get_rank
from mmengine.hooks import Hook, LoggerHook
from mmengine.runner import Runner, find_latest_checkpoint
from mmpretrain.registry import HOOKS
from torch.distributed.tensor import DTensor

from mmdtm.io import write_text
from mmdtm.io.checkpoints import shorten


@dataclass
class _Step:
    """An optimizer step, and what says whether it was sound; tensors on the device."""

    number: int
    epoch: int
    losses: torch.Tensor  # one per micro-batch
    names: list[str]  # of the parameters with gradients
    norms: torch.Tensor  # of these gradients
    sound: torch.Tensor  # (2,) bool: the losses and the gradients of all processes
    images: list[list[str]]  # paths, by micro-batch


@HOOKS.register_module()
class NonFiniteLossHook(Hook):
    """Stop before a loss or a gradient that is NaN or infinite changes the model.

    Weights, moments and step counts stay as they are in such a step, and no
    checkpoint is written after it. Each process that had such a loss writes the
    images of the step to ``WORK_DIR/non_finite_loss_step<N>_rank<R>.json``; where
    gradients alone are not finite, all write ``non_finite_gradient_...``. Gradients
    that overflow in float16 are left to the loss scaler, which skips such a step and
    goes on, until it has lowered its scale below ``MIN_SCALE``.

    A fused optimizer (``fused=True``) skips the step by itself, on the device. The
    run then stops when the next line of the log is due, or a checkpoint, and until
    then nothing waits for the device. Before the step of any other optimizer the
    device is waited for, and the run stops there.

    Both are looked at just before the optimizer steps: no process is then left
    waiting for another's gradients, and the micro-batches of accumulated gradients
    are judged together.
    """

    # Of the loss scaler; half precision needs more than 1 where all is well.
    MIN_SCALE = 2.0**-10

    priority = 'VERY_LOW'  # the others have seen the batch by then

    def before_train(self, runner: Runner) -> None:
        """Come between the optimizer wrapper's backward pass and its step."""
        self._losses: list[torch.Tensor] = []
        self._images: list[list[str]] = []
        self._steps: list[_Step] = []
        self._parameters = [
            (name, parameter)
            for name, parameter in runner.model.named_parameters()
            if parameter.requires_grad
        ]
        self._interval = min(
            (hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)),
            default=1,
        )
        wrapper = runner.optim_wrapper
        update_params, step = wrapper.update_params, wrapper.step

        @functools.wraps(update_params)
        def update_params_noting_loss(loss, *args, **kwargs):
            self._losses.append(loss.detach())
            return update_params(loss, *args, **kwargs)

        # Wrapped, as schedulers look for the mark they left on the step.
        @functools.wraps(step)
        def step_when_finite(**kwargs):
            self._note(runner)
            optimizer = wrapper.optimizer
            if not getattr(optimizer, '_step_supports_amp_scaling', False):
                self._look(runner)
                return step(**kwargs)
            if self._scaler(runner) is not None:  # which tells the optimizer itself
                return step(**kwargs)
            optimizer.found_inf = (~self._steps[-1].sound.all()).float()
            optimizer.grad_scale = None
            try:
                return step(**kwargs)
            finally:
                del optimizer.found_inf, optimizer.grad_scale

        wrapper.update_params = update_params_noting_loss
        wrapper.step = step_when_finite

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None):
        """Remember where the images came from, not the images."""
        samples = data_batch.get('data_samples') if isinstance(data_batch, dict) else []
        self._images.append(
            [str(getattr(sample, 'img_path', '?')) for sample in samples or []]
        )

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        """Look at the steps since the last look, where the log waits anyway."""
        if (
            self.every_n_inner_iters(batch_idx, self._interval)
            or self.end_of_epoch(runner.train_dataloader, batch_idx)
            or self.is_last_train_iter(runner)
        ):
            self._look(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Save nothing after a step that was not sound."""
        if getattr(self, '_steps', None):
            self._look(runner)

    def _scaler(self, runner: Runner):
        """The loss scaler, if there is one that does anything."""
        scaler = getattr(runner.optim_wrapper, 'loss_scaler', None)
        enabled = getattr(scaler, 'is_enabled', lambda: scaler is not None)
        return scaler if enabled() else None

    def _note(self, runner: Runner) -> None:
        """Keep what says whether this step is sound; nothing is waited for."""
        losses, images = torch.stack(self._losses), self._images
        self._losses, self._images = [], []
        used = [(n, p) for n, p in self._parameters if p.grad is not None]
        norms = losses.new_zeros(1)
        if self._scaler(runner) is None:
            # Of what this process has, where processes share the model.
            gradients = [
                p.grad.to_local() if isinstance(p.grad, DTensor) else p.grad
                for _, p in used
            ]
            norms = torch.stack(torch._foreach_norm(gradients))
        sound = torch.stack([losses.isfinite().all(), norms.isfinite().all()]).int()
        all_reduce(sound, 'min')
        self._steps.append(
            _Step(
                number=runner.iter + 1,
                epoch=runner.epoch + 1,
                losses=losses,
                names=[name for name, _ in used],
                norms=norms,
                sound=sound.bool(),
                images=images,
            )
        )

    def _look(self, runner: Runner) -> None:
        """Stop if one of the steps noted was not sound.

        Raises:
            FloatingPointError: Names the first such step.
        """
        steps, self._steps = self._steps, []
        if not steps:
            return
        sound = torch.stack([step.sound for step in steps]).tolist()
        for step, (losses_finite, gradients_finite) in zip(steps, sound, strict=True):
            if not (losses_finite and gradients_finite):
                self._stop(runner, step, losses_finite)
        scaler = self._scaler(runner)
        if scaler is not None and scaler.get_scale() < self.MIN_SCALE:
            self._stop(runner, steps[-1], True)

    def _stop(self, runner: Runner, step: _Step, losses_finite: bool) -> None:
        losses, images = step.losses.tolist(), step.images
        what, where = 'loss', 'another process'
        if losses_finite:  # all processes have the same gradients
            what, where = 'gradient', self._not_finite(runner, step)
        elif not step.losses.isfinite().all():
            finite = step.losses.isfinite().tolist()
            where = str(losses)
            images = [
                paths for ok, paths in zip(finite, images, strict=False) if not ok
            ]
        if where != 'another process':
            file = Path(runner.work_dir) / (
                f'non_finite_{what}_step{step.number}_rank{get_rank()}.json'
            )
            record = dict(
                step=step.number,
                epoch=step.epoch,
                rank=get_rank(),
                losses=[str(loss) for loss in losses],
                img_paths=sum(images, []),
            )
            try:
                write_text(file, json.dumps(record, indent=1))
                where += f'; its images are listed in {file}'
            except OSError as error:
                where += f'; its images cannot be listed: {error}'
        last = find_latest_checkpoint(runner.work_dir)
        raise FloatingPointError(
            f'The {what} of step {step.number} is not finite ({where}). The model was '
            f'not updated. The last checkpoint is {last or "not there yet"}: resume '
            'from it with a lower learning rate or without mixed precision, or look at '
            'the images.'
        )

    def _not_finite(self, runner: Runner, step: _Step) -> str:
        if self._scaler(runner) is not None:
            return f'whatever the loss scale, down to {self.MIN_SCALE}'
        finite = step.norms.isfinite().tolist()
        pairs = zip(step.names, finite, strict=True)
        names = [name for name, ok in pairs if not ok]
        return shorten(names) if names else 'of a parameter of another process'
