"""A run that is told to stop saves itself first."""

import functools
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import torch
from mmengine.device import get_device
from mmengine.dist import all_reduce, barrier, get_world_size, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from mmdtm.io import write_text

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
EXIT_CODE = 75  # sysexits.h: a temporary failure, try again


@HOOKS.register_module()
class PreemptionHook(Hook):
    """Save and stop after the step in which a signal comes.

    The signals are SIGTERM, SIGUSR1 (Slurm's warning before it kills) and one
    Ctrl-C; a second one ends the process at once. All processes stop after the
    same step, whichever was told to. The first one writes ``iter_<step>.pth``
    beside the other checkpoints, and all exit with code 75. Once the resumed run
    has saved again, it removes that file.

    A signal during a validation counts when the next training step is done; one
    in the last step of all lets the run end as it would have.
    """

    priority = 'LOWEST'  # the others have done with the step, and saved what they do

    # In the message hub, and so in the checkpoint.
    INFO = 'preemption_checkpoint'

    def __init__(self) -> None:
        self._signal: signal.Signals | None = None
        self._arriving: torch.Tensor | None = None
        self._before: dict = {}

    def before_train(self, runner: Runner) -> None:
        """Listen to the signals."""
        self._pid = os.getpid()
        for loop in (runner.train_loop, runner.val_loop):
            if loop is not None:
                loader = loop.dataloader
                loader.worker_init_fn = functools.partial(
                    _outlive_signals, loader.worker_init_fn
                )
        self._before = {n: signal.signal(n, self._handle) for n in SIGNALS}

    def after_train(self, runner: Runner) -> None:
        """Leave the signals to others again."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # in a process forked from this one
            return
        now = time.monotonic()
        if self._signal is None:
            self._signal, self._since = signal.Signals(number), now
            if number == signal.SIGINT:
                os.write(2, b'\nSaving after this step; Ctrl-C again ends at once.\n')
        elif number == signal.SIGINT and now > self._since + 1:  # no launcher's echo
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        """Stop if any process was told to.

        Raises:
            SystemExit: With code 75, after saving.
        """
        self._remove_outdated(runner)
        last = runner.iter + 1 == runner.max_iters
        if self._any_told_to_stop() and not last:
            self._stop(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Remove what a checkpoint of this epoch makes outdated."""
        self._remove_outdated(runner)

    def _any_told_to_stop(self) -> bool:
        told = self._signal is not None
        if get_world_size() == 1:
            return told
        # What was asked a step ago: that answer is there, and no device is waited
        # for.
        arrived = self._arriving
        self._arriving = torch.full((), int(told), device=get_device())
        all_reduce(self._arriving, 'max')
        return arrived is not None and bool(arrived)

    def _stop(self, runner: Runner) -> None:
        step = runner.iter + 1
        hook = _checkpoint_hook(runner)
        folder = str(getattr(hook, 'out_dir', None) or runner.work_dir)
        path = os.path.join(folder, f'iter_{step}.pth')
        saved = f'which is saved in {path}'
        if getattr(hook, 'last_ckpt', None) != path:  # not just saved
            runner.message_hub.update_info(self.INFO, path)
            runner.call_hook('before_checkpoint')
            try:
                runner.save_checkpoint(
                    folder,
                    os.path.basename(path),
                    meta=dict(epoch=runner.epoch, iter=step),
                    by_epoch=False,
                    backend_args=getattr(hook, 'backend_args', None),
                )
                if is_main_process():
                    write_text(Path(runner.work_dir, 'last_checkpoint'), path)
            except OSError as error:
                saved = f'which could not be saved: {error}'
        barrier()
        told = self._signal.name if self._signal else 'a signal to another process'
        runner.logger.warning(
            f'Stopped by {told} after step {step}, {saved}. To go on, run the same '
            'command with --resume.'
        )
        self.after_train(runner)
        raise SystemExit(EXIT_CODE)

    def _remove_outdated(self, runner: Runner) -> None:
        path = runner.message_hub.runtime_info.get(self.INFO)
        hook = _checkpoint_hook(runner)
        if path is None or hook is None or hook.last_ckpt in (None, path):
            return
        runner.message_hub.runtime_info.pop(self.INFO)
        # Not another run's, from which this one goes on in a folder of its own.
        if is_main_process() and Path(path).parent == Path(hook.out_dir):
            Path(path).unlink(missing_ok=True)


def _checkpoint_hook(runner: Runner) -> CheckpointHook | None:
    hooks = (hook for hook in runner.hooks if isinstance(hook, CheckpointHook))
    return next(hooks, None)


def _outlive_signals(then: Callable | None, worker: int) -> None:
    """Start a loader's worker, which the last step may need.

    Ctrl-C, Slurm and torchrun send their signals to all processes; from its loader
    alone a worker takes SIGTERM.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if hasattr(signal, 'sigwaitinfo'):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey_the_loader, daemon=True).start()
    if then is not None:
        then(worker)


def _obey_the_loader() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
