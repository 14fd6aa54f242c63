"""Run commands that need one another, several at once, and none twice.

A folder remembers what has been done: ``logs/NAME.log`` is what a command printed,
``jobs/NAME`` its record. The command's own shell completes the record, so that the
end of a command whose pool was killed is known, too::

    jobs = [
        Job('data', ['make_data.sh', 'data'], makes=[Path('data/list.txt')]),
        Job('train', ['train.sh', 'data'], needs=['data']),
        Job('test', ['test.sh', 'data'], needs=['train']),
    ]
    with ProcessPool(jobs, Path('work_dirs/mine')) as pool:
        for job, problem in pool.run(Console()):
            print(job.name, problem or 'done')

tools/grid_search.py, tools/reproduce.py and examples/toy/quickstart.py run on it.
"""

import fcntl
import hashlib
import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.markup import escape

SECONDS_TO_STOP = 20  # between asking a command to end and killing it
ETA = re.compile(rb'eta: (?:(\d+) days?, )?(\d+):(\d\d):(\d\d)')
# $0 is the record, which gets the process group and the exit code. The trap keeps
# the shell waiting for the command when the group is asked to end.
SHELL = 'trap : TERM; echo $$ >> "$0"; "$@"; code=$?; echo $code >> "$0"; exit $code'


@dataclass(frozen=True)
class Job:
    """One command.

    Attributes:
        name: Unique in the folder; names the log and the record.
        command: Program and arguments.
        title: What the progress says; the name by default.
        needs: Names of the jobs that must be done before.
        files: What the result depends on beside the command and ``needs``, such as
            scripts and configs. Where one changes, the job is done again.
        key: Stands for the command and ``files`` in that comparison, if given.
        makes: Files and folders that are there once the job is done.
        missing: Says in words what the result lacks, '' if nothing; for what
            ``makes`` cannot tell.
        environment: What is added to the environment.
        alone: Runs beside no other job, and gets no place.
        seconds: What it takes, about, beside the others; the estimate of the time
            left starts from it.
    """

    name: str
    command: Sequence[str | Path]
    title: str = ''
    needs: Sequence[str] = ()
    files: Sequence[Path] = ()
    key: str = ''
    makes: Sequence[Path] = ()
    missing: Callable[[], str] = str
    environment: Mapping[str, str] = field(default_factory=dict)
    alone: bool = False
    seconds: float = 60.0

    def lacks(self) -> str:
        """What the result lacks, in words; '' if nothing."""
        absent = [str(path) for path in self.makes if not Path(path).exists()]
        return f'did not write {", ".join(absent)}' if absent else self.missing()


@dataclass
class _Running:
    job: Job
    process: subprocess.Popen
    place: int | None
    log_start: int  # where its part of the log begins
    start: float = field(default_factory=time.monotonic)


class ProcessPool:
    """Carries out jobs in their order, as far as needs and places allow.

    Entered as a context manager, it holds the folder's lock. Leaving it, also by
    Ctrl-C, SIGTERM or an exception, stops the jobs at work with all that they
    started.

    Args:
        jobs: Each after those that it needs.
        folder: For logs, records and the lock.
        places: As many jobs run at once; each adds its place's variables to the
            environment (GPUs, threads), then its own.
        cwd: Where the commands run; here by default.

    Raises:
        ValueError: If a name comes twice, or a job needs one that is not before it.
        FileNotFoundError: If one of a job's ``files`` is not there.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        folder: Path,
        places: Sequence[Mapping[str, str]] = ({},),
        cwd: Path | None = None,
    ) -> None:
        self.jobs, self.folder, self.cwd = list(jobs), folder, cwd
        self.places, self.free = list(places), deque(range(len(places)))
        self.keys: dict[str, str] = {}
        for job in self.jobs:
            if job.name in self.keys or not self.keys.keys() >= set(job.needs):
                raise ValueError(
                    f'Job {job.name!r} comes twice, or before one that it needs '
                    f'({", ".join(job.needs)}). Give it a name of its own, and list '
                    'it after those.'
                )
            self.keys[job.name] = self._key(job)
        self.running: list[_Running] = []
        self.took: list[tuple[Job, float]] = []  # jobs that ended, and their seconds

    def log(self, name: str) -> Path:
        """What a job prints, over all its attempts."""
        return self.folder / 'logs' / f'{name}.log'

    def tail(self, name: str, lines: int) -> str:
        """The last lines of a job's log, without blank ones."""
        text = self.log(name).read_text(encoding='utf-8', errors='replace')
        return '\n'.join(deque((s for s in text.splitlines() if s.strip()), lines))

    def finished(self, job: Job) -> bool:
        """Whether a job's result is there, whole, and made by the same command."""
        match self._record(job.name):
            case [key, _, _, '0']:
                return key == self.keys[job.name] and not job.lacks()
        return False

    def seconds(self, name: str) -> float:
        """How long a finished job took."""
        return self._path(name).stat().st_mtime - float(self._record(name)[1])

    def waiting(self) -> list[Job]:
        """What is not finished, or rests on what is not."""
        names: set[str] = set()
        for job in self.jobs:
            if not names.isdisjoint(job.needs) or not self.finished(job):
                names.add(job.name)
        return [job for job in self.jobs if job.name in names]

    def records(self) -> dict[str, list[str]]:
        """Key, start, process group and exit code of each job, as far as known."""
        names = [path.name for path in self._path('').glob('*')]
        return {name: words for name in names if (words := self._record(name))}

    def forget(self) -> None:
        """Drop all records, so that everything is done again."""
        for path in self._path('').glob('*'):
            path.unlink()

    def __enter__(self) -> 'ProcessPool':
        """Lock the folder; jobs share the lock, so that it holds where one outlives us.

        Raises:
            BlockingIOError: If another pool, or a job left behind by one, holds it.
        """
        for path in (self._path(''), self.folder / 'logs'):
            path.mkdir(parents=True, exist_ok=True)
        self.lock = (self.folder / '.lock').open('a')
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.lock.close()
            groups = [words[2] for words in self.records().values() if len(words) == 3]
            raise BlockingIOError(
                f'{self.folder}: another start, or a job that one left behind, is '
                f'still at work here (process groups: {", ".join(groups) or "none"}). '
                'Wait for it or stop it.'
            ) from error
        # Asked to end, by a batch system for one, stop the jobs as on Ctrl-C.
        self.before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self.lock.close()
        signal.signal(signal.SIGTERM, self.before)

    def run(self, console: Console) -> Iterator[tuple[Job, str]]:
        """Carry out what is not finished; yield each job as it ends, and why it failed.

        What needs a job that failed is left out; the rest goes on, unless the caller
        leaves the pool.
        """
        waiting = self.waiting()
        done = {job.name for job in self.jobs} - {job.name for job in waiting}
        for job in waiting:
            self._path(job.name).unlink(missing_ok=True)
        begun = shown = time.monotonic()
        with console.status('') as status:
            while True:
                self._start_ready(waiting, done)
                if not self.running:
                    return
                now, text = time.monotonic(), self._progress(waiting, begun)
                status.update(text)
                # Where there is no terminal, a line every now and then.
                seldom = max(20, (now - begun) / 20)
                if not console.is_terminal and now - shown > seldom:
                    shown = now
                    console.print(text, highlight=False)
                time.sleep(0.1)
                for item in [r for r in self.running if r.process.poll() is not None]:
                    self.running.remove(item)
                    self.took.append((item.job, time.monotonic() - item.start))
                    if item.place is not None:
                        self.free.append(item.place)
                    problem = item.job.lacks()
                    if code := item.process.returncode:
                        problem = f'ended with exit code {code}'
                    if not problem:
                        done.add(item.job.name)
                    yield item.job, problem

    def _key(self, job: Job) -> str:
        """Changes whenever a finished job would have to be done again."""
        own = job.key or [str(part) for part in job.command]
        needs = [self.keys[name] for name in job.needs]
        digest = hashlib.sha256(json.dumps([own, needs]).encode())
        for file in () if job.key else job.files:
            digest.update(Path(file).read_bytes())
        return digest.hexdigest()

    def _path(self, name: str) -> Path:
        return self.folder / 'jobs' / name

    def _record(self, name: str) -> list[str]:
        try:
            return self._path(name).read_text().split()
        except (OSError, ValueError):
            return []

    def _start_ready(self, waiting: list[Job], done: set[str]) -> None:
        possible = done | {item.job.name for item in self.running}
        for job in list(waiting):
            if possible.issuperset(job.needs):
                possible.add(job.name)
            else:  # what it needs has failed
                waiting.remove(job)
        # Between two that run alone the longest first, so that none is left over.
        ahead = list(itertools.takewhile(lambda job: not job.alone, waiting))
        ahead.sort(key=lambda job: -job.seconds)
        for job in ahead + waiting[len(ahead) :]:
            if done.issuperset(job.needs):
                alone = job.alone or any(item.job.alone for item in self.running)
                if self.running and (alone or not self.free):
                    return
                waiting.remove(job)
                self._start(job)
            elif job.alone:
                return  # nothing overtakes it

    def _start(self, job: Job) -> None:
        place = None if job.alone else self.free.popleft()
        variables = {} if place is None else self.places[place]
        command = [str(part) for part in job.command]
        record = self._path(job.name).absolute()
        # The start and the end by one clock, the file system's: others run ahead of it.
        record.write_text('')
        record.write_text(f'{self.keys[job.name]} {record.stat().st_mtime}\n')
        with self.log(job.name).open('a', encoding='utf-8') as log:
            print('$', shlex.join(command), file=log, flush=True)
            log_start = log.tell()
            process = subprocess.Popen(
                ['sh', '-c', SHELL, str(record), *command],
                cwd=self.cwd,
                env={**os.environ, 'PYTHONUNBUFFERED': '1', **variables}
                | dict(job.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that all it starts can be stopped
                pass_fds=[self.lock.fileno()],
            )
        self.running.append(_Running(job, process, place, log_start))

    def _stop(self) -> None:
        """End what still runs with all that it started: ask first, then kill."""
        alive = [item for item in self.running if item.process.poll() is None]
        for number in (signal.SIGTERM, signal.SIGKILL):
            for item in alive:
                if item.process.poll() is None:
                    os.killpg(item.process.pid, number)
            deadline = time.monotonic() + SECONDS_TO_STOP
            while time.monotonic() < deadline and any(
                item.process.poll() is None for item in alive
            ):
                time.sleep(0.05)
        for item in alive:  # asked to end, a command may have ended as if it were done
            self._path(item.job.name).unlink(missing_ok=True)
        self.running.clear()

    def _progress(self, waiting: Sequence[Job], begun: float) -> str:
        """What is to do, what runs, and the time gone and left."""
        now, places = time.monotonic(), len(self.places)
        etas = [_eta(self.log(item.job.name), item.log_start) for item in self.running]
        # What jobs take here, by what they were thought to take.
        took = self.took + [
            (item.job, now - item.start + eta)
            for item, eta in zip(self.running, etas, strict=True)
            if eta is not None
        ]
        nominal = sum(job.seconds for job, _ in took)
        pace = sum(seconds for _, seconds in took) / nominal if took else 1.0
        left = [(job, pace * job.seconds) for job in waiting]
        titles = []
        for item, eta in zip(self.running, etas, strict=True):
            guess = max(1.0, pace * item.job.seconds - (now - item.start))
            left.append((item.job, guess if eta is None else eta))
            titles.append(f'{item.job.title or item.job.name} ({_clock(left[-1][1])})')
        work = sum(seconds * (places if job.alone else 1) for job, seconds in left)
        return (
            f'{len(waiting)} of {len(self.jobs)} to come, {_clock(now - begun)} gone, '
            f'about {_clock(work / places)} left: {escape(" + ".join(titles))}'
        )


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _eta(log: Path, start: int) -> float | None:
    """Seconds left by a training run's last line of log, from byte ``start`` on."""
    with log.open('rb') as file:
        file.seek(max(start, file.seek(0, os.SEEK_END) - 4000))
        found = ETA.findall(file.read())
    if not found:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found[-1])
    return 3600 * (24 * days + hours) + 60 * minutes + seconds
