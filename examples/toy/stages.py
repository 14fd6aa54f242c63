"""Run commands that depend on one another, and tell where they stand.

A stage is a command with a log of its own. Finished ones leave a marker and are
not repeated; one that fails ends the run with the end of its log. Stages that
train on all cores run alone, the others two at a time.
"""

import collections
import contextlib
import hashlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from mmdtm.io import write_text

LANES = 2  # stages at a time that do not ask for all cores
ETA = re.compile(rb'eta: (?:(\d+) days?, )?(\d+):(\d\d):(\d\d)')


class StageError(RuntimeError):
    """A stage's command failed; the message has the end of its log."""


@dataclass(frozen=True)
class Stage:
    """One command.

    Attributes:
        name: Unique; names its log and its marker.
        title: What the progress line says.
        command: Program and arguments.
        seconds: What it takes on two cores, for the first estimate.
        needs: Names of the stages that must be finished before.
        files: What the result depends on beside the command and ``needs``:
            scripts, configs.
        makes: What is there once it is finished.
        all_cores: Runs alone.
    """

    name: str
    title: str
    command: Sequence[str]
    seconds: float
    needs: Sequence[str] = ()
    files: Sequence[Path] = ()
    makes: Sequence[Path] = ()
    all_cores: bool = False


@dataclass
class _Running:
    stage: Stage
    process: subprocess.Popen
    log: Path
    start: float


def clock(seconds: float) -> str:
    """Minutes and seconds, as 3:07."""
    return f'{int(seconds) // 60}:{int(seconds) % 60:02d}'


class Stages:
    """Runs stages as their needs allow, in their order.

    Between two that ask for all cores, the longest begin first, so that none runs
    alone at the end.

    Args:
        stages: Each after those that it needs.
        folder: For ``logs/`` and the markers in ``done/``.
        cwd: Where the commands run.
        console: To print to.
        force: Repeat finished stages, too.

    Raises:
        ValueError: If a name comes twice, or a stage needs one not before it.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        folder: Path,
        cwd: Path,
        console: Console,
        force: bool = False,
    ) -> None:
        self.stages, self.cwd, self.console = list(stages), cwd, console
        self.force = force
        self.logs, self.markers = folder / 'logs', folder / 'done'
        self.keys: dict[str, str] = {}
        for stage in self.stages:
            missing = [name for name in stage.needs if name not in self.keys]
            if missing or stage.name in self.keys:
                raise ValueError(
                    f'Stage {stage.name!r} needs {missing} before it'
                    if missing
                    else f'Two stages are called {stage.name!r}'
                )
            self.keys[stage.name] = self._key(stage)
        self.running: list[_Running] = []
        # Nominal and real seconds of what has run: how fast this machine is.
        self.nominal = self.real = 0.0

    def _key(self, stage: Stage) -> str:
        """Changes whenever a finished stage would have to be repeated."""
        parts = [list(stage.command), [self.keys[name] for name in stage.needs]]
        digest = hashlib.sha256(json.dumps(parts).encode())
        for file in stage.files:
            digest.update(Path(file).read_bytes())
        return digest.hexdigest()

    def _marker(self, stage: Stage) -> Path:
        return self.markers / f'{stage.name}.json'

    def finished(self, stage: Stage) -> bool:
        """Whether its result is there and was made by this command."""
        try:
            marker = json.loads(self._marker(stage).read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return False
        return marker['key'] == self.keys[stage.name] and all(
            Path(path).exists() for path in stage.makes
        )

    def seconds(self, name: str) -> float:
        """How long a finished stage took."""
        return json.loads((self.markers / f'{name}.json').read_text())['seconds']

    def run(self) -> None:
        """Run what is not finished.

        Raises:
            StageError: If a command fails; those beside it are stopped.
        """
        self.logs.mkdir(parents=True, exist_ok=True)
        self.markers.mkdir(parents=True, exist_ok=True)
        done = {s.name for s in self.stages if not self.force and self.finished(s)}
        # What rests on a stage that is to be repeated is repeated as well.
        for stage in self.stages:
            if not done.issuperset(stage.needs):
                done.discard(stage.name)
        waiting = [s for s in self.stages if s.name not in done]
        if done:
            self.console.print(
                f'{len(done)} of {len(self.stages)} stages were finished before '
                '(--force repeats them)'
            )
        for stage in waiting:
            self._marker(stage).unlink(missing_ok=True)
        line = _ProgressLine(self.console, len(self.stages))
        try:
            with line:
                while waiting or self.running:
                    self._start_ready(waiting, done)
                    time.sleep(0.2)
                    self._collect(done)
                    line.show(
                        len(done),
                        [item.stage.title for item in self.running],
                        self._remaining(waiting),
                    )
        finally:
            self._stop()

    def _start_ready(self, waiting: list[Stage], done: set[str]) -> None:
        for stage in _in_turn(waiting):
            alone = stage.all_cores or any(r.stage.all_cores for r in self.running)
            if self.running and (alone or len(self.running) >= LANES):
                return
            if done.issuperset(stage.needs):
                waiting.remove(stage)
                self._start(stage)
            elif stage.all_cores:
                return  # nothing overtakes it

    def _start(self, stage: Stage) -> None:
        cores = (
            len(os.sched_getaffinity(0))
            if hasattr(os, 'sched_getaffinity')
            else (os.cpu_count() or 1)
        )
        threads = max(1, min(cores, 16) // (1 if stage.all_cores else LANES))
        env = dict(
            os.environ, PYTHON=sys.executable, PYTHONUNBUFFERED='1', COLUMNS='100'
        )
        # Two processes of a small model, whatever the machine has.
        env['CUDA_VISIBLE_DEVICES'] = ''
        # Keep freed memory: giving back and asking again for every activation
        # takes glibc a good part of a small model's step.
        env.update(MALLOC_MMAP_THRESHOLD_='1000000000', MALLOC_TRIM_THRESHOLD_='-1')
        # tools/dist_train.sh shares the cores out by itself.
        if not str(stage.command[0]).endswith('.sh'):
            env.update(OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
        log = self.logs / f'{stage.name}.log'
        with log.open('wb') as file:
            process = subprocess.Popen(
                list(map(str, stage.command)),
                cwd=self.cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that its children can be stopped, too
            )
        self.running.append(_Running(stage, process, log, time.time()))

    def _collect(self, done: set[str]) -> None:
        for item in list(self.running):
            code = item.process.poll()
            if code is None:
                continue
            stage, seconds = item.stage, time.time() - item.start
            absent = [str(p) for p in stage.makes if not Path(p).exists()]
            if code or absent:
                text = item.log.read_text(errors='replace')
                tail = '\n'.join(collections.deque(text.splitlines(), 25))
                reason = (
                    f'ended with exit code {code}'
                    if code
                    else f'did not write {", ".join(absent)}'
                )
                raise StageError(
                    f'{tail}\n\n{stage.title} {reason}.\nIts log: {item.log}\n'
                    f'Its command: {" ".join(map(str, stage.command))}'
                )
            self.running.remove(item)
            self.nominal, self.real = self.nominal + stage.seconds, self.real + seconds
            write_text(
                self._marker(stage),
                json.dumps(dict(key=self.keys[stage.name], seconds=seconds)) + '\n',
            )
            done.add(stage.name)
            self.console.print(f'{stage.title:<34}{clock(seconds):>6}', highlight=False)

    def _remaining(self, waiting: list[Stage]) -> float:
        """Seconds to the end, estimated."""
        speed = self.real / self.nominal if self.nominal else 1.0
        lanes = [0.0] * LANES
        for item in self.running:
            left = _eta(item.log)
            if left is None:
                left = item.stage.seconds * speed - (time.time() - item.start)
            lanes[lanes.index(min(lanes))] += max(left, 1.0)
        for stage in waiting:
            if stage.all_cores:
                lanes = [max(lanes) + stage.seconds * speed] * LANES
            else:
                lanes[lanes.index(min(lanes))] += stage.seconds * speed
        return max(lanes)

    def _stop(self) -> None:
        """End what still runs, with its children."""
        for item in self.running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(item.process.pid, signal.SIGTERM)
        for item in self.running:
            try:
                item.process.wait(5)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(item.process.pid, signal.SIGKILL)
                item.process.wait()
        self.running.clear()


def _in_turn(waiting: list[Stage]) -> list[Stage]:
    """Those before the next that asks for all cores, the longest first."""
    ahead = list(itertools.takewhile(lambda stage: not stage.all_cores, waiting))
    longest_first = sorted(ahead, key=lambda stage: -stage.seconds)
    return longest_first + waiting[len(ahead) :]


def _eta(log: Path) -> float | None:
    """The last estimate of time left that a training run has logged."""
    with log.open('rb') as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 4000))
        found = ETA.findall(file.read())
    if not found:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found[-1])
    # It was written a while ago, but evaluation comes on top.
    return 3600 * (24 * days + hours) + 60 * minutes + seconds


class _ProgressLine:
    """A live line on a terminal; elsewhere a plain one now and then."""

    EVERY = 20.0  # seconds, where there is no terminal

    def __init__(self, console: Console, total: int) -> None:
        self.console, self.total = console, total
        self.start, self.last = time.time(), 0.0
        self.progress = Progress(
            TextColumn('[bold]{task.fields[stage]}[/]'),
            TextColumn('{task.description}'),
            BarColumn(bar_width=20),
            TimeElapsedColumn(),
            TextColumn('{task.fields[left]}'),
            console=console,
            transient=True,
        )
        self.task = self.progress.add_task('', total=None, stage='', left='')

    def __enter__(self):
        if self.console.is_terminal:
            self.progress.start()
        return self

    def __exit__(self, *_):
        if self.console.is_terminal:
            self.progress.stop()

    def show(self, done: int, titles: list[str], remaining: float) -> None:
        elapsed = time.time() - self.start
        stage = f'Stage {min(done + 1, self.total)} of {self.total}'
        left = f'about {clock(remaining)} left'
        if self.console.is_terminal:
            self.progress.update(
                self.task,
                description=' + '.join(titles),
                completed=elapsed,
                total=elapsed + remaining,
                stage=stage,
                left=left,
            )
        elif titles and time.time() - self.last > self.EVERY:
            self.last = time.time()
            self.console.print(
                f'{stage}: {" + ".join(titles)}, {clock(elapsed)} gone, {left}',
                highlight=False,
            )
