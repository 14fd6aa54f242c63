"""Processes that are killed, stopped, told to stop, slow, or wait for ever."""

import itertools
import multiprocessing
import os
import re
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from faults import equal, finish, go_on, prepared
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmpretrain.registry import TRANSFORMS
from runs import PATIENCE, RECIPES, Recipe, Start, at_step, losses, newest_step

ONE, TWO = RECIPES[0], RECIPES[-1]
WITH_WORKERS = RECIPES[1]
STOPPED = 75


@TRANSFORMS.register_module(force=True)
class WaitForEver(BaseTransform):
    """Never returns from one image."""

    def transform(self, results: dict) -> dict:
        if results['img_path'].endswith('0001/5.png'):
            time.sleep(10 * PATIENCE)
        return results


def watched(config: Path, seconds: float, hanging: bool = False) -> Path:
    """The config with a watchdog that waits less, and perhaps with an image
    that takes for ever.
    """
    cfg = Config.fromfile(config)
    for hook in cfg.custom_hooks:
        if hook.type == 'WatchdogHook':
            hook.timeout = seconds
    if hanging:
        cfg.train_dataloader.dataset.pipeline.insert(1, dict(type='WaitForEver'))
    path = config.with_stem(f'{config.stem}-watched{seconds}{hanging}')
    cfg.dump(path)
    return path


def told(rank: int, number: int, step: int = 3) -> Callable[[int], None]:
    """Let one of the processes get a signal in a step."""

    def sabotage(own_rank: int) -> None:
        if own_rank == rank:
            at_step(step, lambda: os.kill(os.getpid(), number))

    return sabotage


def signal_to(recipe: Recipe, rank: int, name: str, folder: Path) -> None:
    """All processes save once and stop, without a traceback, and go on exactly."""
    title = f'{name} {rank} {recipe.slug}'
    config, run, reference = prepared(folder, title, recipe)
    sabotage = told(rank, getattr(signal, name))
    start = Start(config, run, processes=recipe.processes, sabotage=sabotage)
    finish(start, STOPPED)
    output = start.output
    assert output.count('Stopped by') == 1 and 'Traceback' not in output, output[-3000:]
    assert newest_step(run) == losses(run)[-1][0] < losses(reference)[-1][0]
    go_on(recipe, config, run, reference)


def control_c_twice(folder: Path) -> None:
    """The second ends at once, within a step that takes for ever."""
    config, run, reference = prepared(folder, 'control_c_twice', WITH_WORKERS)

    def sabotage(rank: int) -> None:
        def wait_for_ever() -> None:
            (run / 'waits').touch()
            time.sleep(10 * PATIENCE)

        at_step(4, wait_for_ever)

    start = Start(config, run, sabotage=sabotage)
    wait_for((run / 'waits').exists)
    os.killpg(start.pids[0], signal.SIGINT)
    time.sleep(2)
    assert start.alive, 'ended by the first'
    os.killpg(start.pids[0], signal.SIGINT)
    began = time.monotonic()
    finish(start, -signal.SIGINT)
    assert time.monotonic() - began < 30 and 'Traceback' not in start.output
    assert newest_step(run) == 3
    go_on(WITH_WORKERS, config, run, reference)


def wait_for(there: Callable[[], bool]) -> None:
    """Wait until something is so.

    Raises:
        AssertionError: It has not come to be.
    """
    end = time.monotonic() + PATIENCE
    while not there():
        assert time.monotonic() < end, 'waited in vain'
        time.sleep(0.05)


def one_killed(rank: int, folder: Path) -> None:
    """The other ends soon, and both go on exactly."""
    config, run, reference = prepared(folder, f'killed {rank}', TWO)
    sabotage = told(rank, signal.SIGKILL)
    start = Start(config, run, processes=2, sabotage=sabotage)
    codes = start.wait(all_of_them=False)
    start.end()
    # -9, had it not ended by itself within 20 seconds.
    assert codes[1 - rank] not in (0, -9), f'{codes}: {start.output[-2000:]}'
    assert codes[rank] == -9, codes
    go_on(TWO, config, run, reference)


def one_stopped(rank: int, folder: Path) -> None:
    """The other says for what it has waited, and ends."""
    config, run, reference = prepared(folder, f'stopped {rank}', TWO)
    start = Start(
        watched(config, 10), run, processes=2, sabotage=told(rank, signal.SIGSTOP)
    )
    codes = start.wait(all_of_them=False)
    start.end()
    assert codes[1 - rank] == 1, f'{codes}: {start.output[-2000:]}'
    assert f'Rank {1 - rank} has waited for ' in start.output, start.output[-2000:]
    # The stopped one says nothing.
    assert start.output.count('another of the 2 processes') == 1
    go_on(TWO, config, run, reference)


def one_slow(folder: Path) -> None:
    """The other waits, and the end is the same."""
    config, run, reference = prepared(folder, 'slow', TWO)

    def sabotage(rank: int) -> None:
        if rank == 1:
            for step in (2, 3, 4):
                at_step(step, lambda: time.sleep(2))

    finish(Start(config, run, processes=2, sabotage=sabotage))
    equal(run, reference, 2)


def worker_killed(folder: Path) -> None:
    """The run ends with an error, and goes on exactly."""
    config, run, reference = prepared(folder, 'worker_killed', WITH_WORKERS)

    def sabotage(rank: int) -> None:
        at_step(3, lambda: multiprocessing.active_children()[0].kill())

    start = Start(config, run, sabotage=sabotage)
    codes = start.wait()
    start.end()
    # The epoch's images may all be there already.
    assert codes in ([0], [1]), codes
    assert codes == [0] or 'DataLoader worker' in start.output, start.output[-2000:]
    go_on(WITH_WORKERS, config, run, reference)


def worker_hangs(workers: int, folder: Path) -> None:
    """The run says which worker reads which file, and ends."""
    recipe = WITH_WORKERS if workers else ONE
    config, run, _ = prepared(folder, f'hangs {workers}', recipe)
    start = Start(watched(config, 8, hanging=True), run)
    codes, output = start.wait(), start.output
    assert codes == [1], output[-2000:]
    said = r'Rank 0 has waited .* for data: worker \d is reading /\S+0001/5\.png'
    assert re.search(said, output), output[-2000:]
    assert 'resume it from its last checkpoint' in output
    wait_for(lambda: not alive(start.pids[0]))


def alive(group: int) -> bool:
    """Whether a process of a group is still there."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


TOLD, ILL = 'process: told to stop', 'process: killed, stopped or slow'
NAMES = ('SIGTERM', 'SIGUSR1', 'SIGINT')
ATTACKS = {
    **{
        f'{name} to the only process': (TOLD, partial(signal_to, ONE, 0, name))
        for name in NAMES
    },
    **{
        f'{name} to rank {rank} of 2': (TOLD, partial(signal_to, TWO, rank, name))
        for name, rank in itertools.product(NAMES, (0, 1))
    },
    'Ctrl-C twice': (TOLD, control_c_twice),
    **{f'rank {r} of 2 killed': (ILL, partial(one_killed, r)) for r in (0, 1)},
    **{f'rank {r} of 2 stopped': (ILL, partial(one_stopped, r)) for r in (0, 1)},
    'rank 1 of 2 slow': (ILL, one_slow),
    'worker killed': (ILL, worker_killed),
    'worker hangs': (ILL, partial(worker_hangs, 2)),
    'image hangs without workers': (ILL, partial(worker_hangs, 0)),
}
