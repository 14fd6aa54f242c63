"""A run that waits for ever says for what, and ends."""

import multiprocessing
import os
import threading
import time
import weakref

from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS


@HOOKS.register_module()
class WatchdogHook(Hook):
    """End a process that has not got on with its run for a long time.

    A worker that hangs on an image, a storage that does not answer, or another
    process that is stopped would keep a run waiting, and its GPUs busy with
    nothing. Each process watches itself, and says its rank, its step, and what it
    waits for: for data, the file that each worker is reading; for other processes,
    the images of its own step. The launcher then ends the others. Those that have
    not said anything are the ones that were waited for.

    Args:
        timeout: Seconds without a step of training, validation or testing. Longer
            than whatever comes between two, such as compiling a model, saving, or
            the first images of a slow storage.

    Raises:
        ValueError: If ``timeout`` is not positive.
    """

    priority = 'VERY_HIGH'

    def __init__(self, timeout: float = 1800) -> None:
        if timeout <= 0:
            raise ValueError(
                f'WatchdogHook: timeout must be positive, got {timeout}. To wait for '
                'ever, remove the hook from custom_hooks.'
            )
        self.timeout = timeout
        self._doing: tuple[float, str, object] | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def before_run(self, runner: Runner) -> None:
        """Begin to watch."""
        self._ended.clear()
        self._doing = None
        # A run that fails leaves the thread behind, which must not keep the model.
        watched = weakref.ref(runner)
        self._thread = threading.Thread(
            target=self._watch, args=(watched,), daemon=True
        )
        self._thread.start()

    def after_run(self, runner: Runner) -> None:
        """Watch no longer.

        A thread that lets go of tensors while the interpreter ends aborts the
        process, so this one ends first.
        """
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _before_epoch(self, runner: Runner, mode: str = 'train') -> None:
        self._wait_for_data(runner, mode)

    def _before_iter(self, runner, batch_idx, data_batch=None, mode='train') -> None:
        self._doing = (time.monotonic(), 'computing', data_batch)

    def _after_iter(
        self, runner, batch_idx, data_batch=None, outputs=None, mode='train'
    ) -> None:
        self._wait_for_data(runner, mode)

    def _after_epoch(self, runner: Runner, mode: str = 'train') -> None:
        self._doing = None  # probes and other evaluations take their time

    def _wait_for_data(self, runner: Runner, mode: str) -> None:
        loader = getattr(getattr(runner, f'{mode}_loop'), 'dataloader', None)
        self._doing = (time.monotonic(), 'loading', getattr(loader, 'dataset', None))

    def _watch(self, watched: weakref.ref[Runner]) -> None:
        while not self._ended.wait(min(10, self.timeout / 4)):
            if not self._look(watched()):
                return

    def _look(self, runner: Runner | None) -> bool:
        """End a process that waits; whether there still is a run."""
        doing = self._doing  # in a call, which keeps no batch until the next one
        if runner and doing and time.monotonic() - doing[0] > self.timeout:
            runner.logger.error(self._report(runner, *doing))
            for worker in multiprocessing.active_children():
                worker.kill()  # one that hangs would outlive this process
            os._exit(1)
        return runner is not None

    def _report(self, runner: Runner, since: float, phase: str, subject) -> str:
        seconds = time.monotonic() - since
        if phase == 'loading':
            what = f'data: {_files_being_read(subject)}'
        else:
            what = f'its device{_images(subject)}'
        if get_world_size() > 1:
            what += (
                f'; or for another of the {get_world_size()} processes: one that does '
                'not say this, too, is stopped or dead'
            )
        return (
            f'Rank {get_rank()} has waited for {seconds:.0f} s, after step '
            f'{runner.iter}, for {what}. The run ends here: resume it from its last '
            'checkpoint, or raise timeout of WatchdogHook if this may take longer.'
        )


def _images(batch) -> str:
    samples = batch.get('data_samples') if isinstance(batch, dict) else None
    names = [str(getattr(sample, 'img_path', '?')) for sample in samples or []]
    return f', with the images {", ".join(names[:4])}, ...' if names else ''


def _files_being_read(dataset) -> str:
    """What each worker of the loader is reading, where the data set notes it."""
    loading = getattr(dataset, 'loading', None)
    if loading is None:
        return 'a worker or the storage does not answer'
    busy = [
        f'worker {worker} is reading '
        f'{dataset.get_data_info(index).get("img_path", f"sample {index}")}'
        for worker, index in enumerate(loading.tolist())
        if index >= 0
    ]
    return ', '.join(busy) or 'no worker is reading anything'
