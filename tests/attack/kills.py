"""Runs killed at random moments and at each step of a save, and resumed."""

import fcntl
import os
import random
import secrets
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mmengine.fileio import LocalBackend
from runs import Recipe, Start, at_step, differences, losses, newest_step, warm_up

# A save's calls: a name is chosen, bytes are written, synced, named; outdated files
# are removed.
CALLS = (
    (secrets, 'token_hex'),
    (Path, 'write_bytes'),
    (Path, 'write_text'),
    (os, 'fsync'),
    (os, 'replace'),
    (LocalBackend, 'remove'),
)


@dataclass
class AtTime:
    """Kill a process some seconds after it has begun a step (0: after its start)."""

    step: int
    seconds: float
    rank: int = 0

    def __call__(self, rank: int) -> None:
        """Arm it, in the process itself."""
        if rank != self.rank:
            return
        if self.step:
            at_step(self.step, self._arm)
        else:
            self._arm()

    def _arm(self) -> None:
        # A thread, so that it happens wherever the process is by then.
        timer = threading.Timer(self.seconds, os.kill, (os.getpid(), signal.SIGKILL))
        timer.daemon = True
        timer.start()

    def __str__(self) -> str:
        return f'{1000 * self.seconds:.0f} ms after the begin of step {self.step}'


@dataclass
class InSave:
    """Kill a process at one of the calls of its saves.

    Args:
        number: Of the call, counted from the process's first.
        when: 'before', 'after', or 'within' it: with half of the bytes written.
    """

    number: int
    when: str
    rank: int = 0

    def __call__(self, rank: int) -> None:
        """Arm it, in the process itself."""
        if rank == self.rank:
            count_calls(self._meet)

    def _meet(self, number: int, call: Callable, args: tuple) -> None:
        if number != self.number:
            return
        if self.when == 'after':
            call()
        elif self.when == 'within' and isinstance(args[-1], (bytes, str)):
            half = args[-1][: len(args[-1]) // 2]
            with open(args[0], 'wb') as file:
                file.write(half if isinstance(half, bytes) else half.encode())
        os.kill(os.getpid(), signal.SIGKILL)

    def __str__(self) -> str:
        return f'{self.when} call {self.number} of the saves'


def count_calls(meet: Callable[[int, Callable, tuple], None]) -> None:
    """Let ``meet`` see each call of a save before it is made."""
    count = 0

    def watched(call: Callable) -> Callable:
        def wrapped(*args, **kwargs):
            nonlocal count
            count += 1
            meet(count, lambda: call(*args, **kwargs), args)
            return call(*args, **kwargs)

        return wrapped

    for owner, name in CALLS:
        setattr(owner, name, watched(getattr(owner, name)))


def unbroken(recipe: Recipe, folder: Path) -> tuple[Path, Path, int]:
    """Run a recipe without a kill, once.

    Returns:
        Its config, its work folder, and how many calls its saves made.
    """
    run, counted = folder / 'unbroken' / recipe.slug, folder / f'{recipe.slug}.calls'
    config = folder / f'{recipe.slug}.py'
    with open(folder / f'{recipe.slug}.lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several attacks may want it at once
        if not counted.exists():
            _run_unbroken(recipe, config, run, counted)
    warm_up(counted.with_suffix('.modules'))
    return config, run, int(counted.read_text())


def _run_unbroken(recipe: Recipe, config: Path, run: Path, counted: Path) -> None:
    shutil.rmtree(run, ignore_errors=True)
    recipe.write(config.parent)

    def note(rank: int) -> None:
        seen: list[int] = []
        count_calls(lambda number, *_: seen.append(number))
        leave = os._exit

        def noting(code: int) -> None:
            if rank == 0 and code == 0:
                modules = counted.with_suffix('.modules')
                for file, text in (
                    (modules, '\n'.join(sys.modules)),
                    (counted, str(len(seen))),
                ):
                    with open(file, 'w') as written:
                        written.write(text)
            leave(code)

        os._exit = noting

    start = Start(config, run, processes=recipe.processes, sabotage=note)
    codes = start.wait()
    start.end()
    if any(codes):
        raise RuntimeError(f'{recipe.name}, unbroken: {codes}\n{start.output}')


def kill_and_resume(
    recipe: Recipe, folder: Path, seed: int, kills: int
) -> Iterator[tuple[str, str]]:
    """Kill a run several times, resuming it each time, and compare its end.

    Yields:
        For each kill when it came, and what was lost, '' if nothing. What the
        losses show counts for the chain's last.
    """
    config, reference, calls = unbroken(recipe, folder)
    steps = len(losses(reference))
    run = folder / 'killed' / f'{recipe.slug}-{seed}'
    shutil.rmtree(run, ignore_errors=True)
    draw, starts, saved = random.Random(f'{recipe.name} {seed}'), [], 0
    outcomes: list[tuple[str, str]] = []
    try:
        while True:
            rank = draw.randrange(recipe.processes)
            left = max(1, calls - calls * saved // steps)
            if len(outcomes) == kills or saved == steps:
                kill = None
            elif draw.random() < 0.5:
                step = draw.randint(saved and saved + 1, steps)
                kill = AtTime(step, draw.uniform(0, 0.3 if step else 2), rank)
            else:
                when = draw.choice(['before', 'within', 'after'])
                kill = InSave(draw.randint(1, left), when)
            start = Start(
                config,
                run,
                '--resume',
                'auto',
                processes=recipe.processes,
                sabotage=kill,
            )
            starts.append(start)
            before = len(losses(run))
            codes = start.wait(all_of_them=False)
            trained = [step for step, _ in losses(run)[before:]]
            lost = ''
            if -signal.SIGKILL not in codes and any(codes):
                lost = f'ended with {codes}: {start.output[-2000:]}'
            elif trained and trained[0] != saved + 1:
                lost = f'went on with step {trained[0]} after {saved} were saved'
            try:
                saved, earlier = newest_step(run), saved
                # A step's loss is noted before its checkpoint is written.
                if saved < max([earlier, *(step - 1 for step in trained)]):
                    lost = f'{trained[-1]} steps trained, {saved} saved'
            except (OSError, ValueError) as error:
                lost = f'{error}'
            if kill is not None and -signal.SIGKILL in codes:
                outcomes.append((f'{kill}', lost))
                continue
            lost = lost or compared(run, reference, recipe)
            if lost:
                when = outcomes.pop()[0] if outcomes else 'before any kill'
                outcomes.append((when, lost))
            if lost or len(outcomes) == kills:
                break
            shutil.rmtree(run)  # at its end before all kills came: once more
            saved = 0
    finally:
        for start in starts:
            start.end()
    if not any(lost for _, lost in outcomes):
        shutil.rmtree(run, ignore_errors=True)
    yield from outcomes


def compared(run: Path, reference: Path, recipe: Recipe) -> str:
    """What the finished run lacks."""
    if left := [path.name for path in run.glob('*.tmp')]:
        return f'left behind: {left}'
    return differences(run, reference, recipe.processes)
