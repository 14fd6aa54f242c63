"""Train a config over a grid, one run after another or several at once.

What tools/grid_search.py does between its arguments and its tables: which runs
there are, what is already finished, the command of each, and carrying them out.
"""

import fcntl
import hashlib
import itertools
import json
import os
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from mmengine.config import Config

from mmdtm.io import write_text
from mmdtm.report import read_run

KEYS = dict(
    lr='optim_wrapper.optimizer.lr',
    weight_decay='optim_wrapper.optimizer.weight_decay',
    seed='randomness.seed',
)
METRICS = dict(Accuracy='accuracy/top1', IoUMetric='mIoU')  # of evaluators
SECONDS_TO_STOP = 20  # between asking a run to stop and killing it


@dataclass
class GridRun:
    """One point of the grid with one seed; None leaves the config's own value."""

    lr: float | None
    weight_decay: float | None
    seed: int | None
    status: str = 'waiting'  # waiting, running, finished or failed
    value: float | None = None
    seconds: float | None = None
    pid: int | None = None  # of its process group, while it runs

    @property
    def settings(self) -> dict[str, float]:
        """What is searched, by the names of ``KEYS``."""
        pairs = {name: getattr(self, name) for name in KEYS}
        return {name: value for name, value in pairs.items() if value is not None}

    @property
    def name(self) -> str:
        """Folder name, such as ``lr0.0003_wd0.05_seed1``."""
        short = dict(lr='lr', weight_decay='wd', seed='seed')
        return '_'.join(f'{short[k]}{v!r}' for k, v in self.settings.items())


class GridSearch:
    """The runs of a grid, their state on disk, and their commands.

    Args:
        config: Path of any mmengine config.
        work_dir: Gets a folder for each run, their output under ``logs``, and
            ``grid_search.json``, the state.
        lrs, weight_decays, seeds: Values to search; None leaves the config's.
        metric: Figure of the last validation to compare; by default that of
            the config's evaluator.
        cfg_options: Overrides for every run, merged.
        option_texts: The same as ``KEY=VALUE``, to hand on.
        launcher: ``'local'`` or ``'slurm'``.
        partition: Of Slurm.
        jobs: Runs at once; by default 1, and all with Slurm.
        gpus: GPUs of each run, where there are any.
        resume: Go on from the checkpoint of a run that was broken off, instead
            of starting it anew.
        tools: Folder with train.py, dist_train.sh and slurm_train.sh.

    Raises:
        FileNotFoundError: If there is no such config.
        ValueError: If it has no optimizer, or no known evaluator and no
            ``metric`` is named.
    """

    def __init__(
        self,
        config: str,
        work_dir: Path,
        lrs: Sequence[float] | None = None,
        weight_decays: Sequence[float] | None = None,
        seeds: Sequence[int] | None = None,
        metric: str | None = None,
        cfg_options: dict | None = None,
        option_texts: Sequence[str] = (),
        launcher: str = 'local',
        partition: str | None = None,
        jobs: int | None = None,
        gpus: int = 1,
        resume: bool = False,
        tools: Path = Path('tools'),
    ) -> None:
        if not Path(config).is_file():
            raise FileNotFoundError(f'{config}: no such config.')
        cfg = Config.fromfile(config, import_custom_modules=False)
        cfg.merge_from_dict(cfg_options or {})
        if 'optimizer' not in (cfg.get('optim_wrapper') or {}):
            raise ValueError(
                f'{config} has no optim_wrapper.optimizer, so there is no learning '
                'rate to search.'
            )
        self.metric = metric or _metric_of(cfg)
        if self.metric is None:
            raise ValueError(
                f'{config}: its evaluator is none of {", ".join(METRICS)}; name the '
                'figure to compare with --metric.'
            )
        # Of a loss, less is better.
        self.best_of = min if self.metric.split('/')[-1].startswith('loss') else max
        loop = cfg.get('train_cfg') or {}
        self.planned = loop.get('max_epochs') or loop.get('max_iters')
        self.fingerprint = hashlib.sha256(
            json.dumps(cfg.to_dict(), sort_keys=True, default=str).encode()
        ).hexdigest()
        self.config, self.work_dir = config, work_dir
        self.option_texts, self.tools = list(option_texts), tools
        self.launcher, self.partition = launcher, partition
        self.gpus, self.resume = gpus, resume
        axes = [
            [None] if values is None else list(dict.fromkeys(values))
            for values in (lrs, weight_decays, seeds)
        ]
        self.runs = [GridRun(*point) for point in itertools.product(*axes)]
        self.jobs = jobs or (len(self.runs) if launcher == 'slurm' else 1)
        self.state_file = work_dir / 'grid_search.json'
        self._other_runs = []  # of an earlier start with other values

    def folder(self, run: GridRun) -> Path:
        """Where a run's logs and checkpoints go."""
        return self.work_dir / run.name

    def log(self, run: GridRun) -> Path:
        """What a run prints, over all its attempts."""
        return self.work_dir / 'logs' / f'{run.name}.log'

    def recall(self) -> None:
        """Recognise what an earlier start has finished.

        A run is finished if that was noted, or if its own log has the figure at
        the planned end, though nobody was left to note it.

        Raises:
            ValueError: If the folder's state is unreadable, or that of a search
                with another config.
        """
        if not self.state_file.is_file():
            return
        try:
            state = json.loads(self.state_file.read_text(encoding='utf-8'))
            same = state['fingerprint'] == self.fingerprint
            noted = {entry['name']: entry for entry in state['runs']}
            statuses = {name: entry['status'] for name, entry in noted.items()}
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f'{self.state_file} is not a state of this tool ({error!r}). Move it '
                'away to start the search anew.'
            ) from error
        if not same:
            raise ValueError(
                f'{self.work_dir} holds a search whose config or --cfg-options were '
                'others. Name another folder with --work-dir.'
            )
        for run in self.runs:
            if statuses.get(run.name, 'failed') != 'failed':
                self._read(run, ended=statuses[run.name] == 'finished')
        names = {run.name for run in self.runs}
        self._other_runs = [e for name, e in noted.items() if name not in names]

    def save(self) -> None:
        """Write the state, whole or not at all."""
        entries = [dict(name=run.name, **asdict(run)) for run in self.runs]
        state = dict(
            config=self.config,
            cfg_options=self.option_texts,
            fingerprint=self.fingerprint,
            metric=self.metric,
            runs=entries + self._other_runs,
        )
        write_text(self.state_file, json.dumps(state, indent=1) + '\n')

    def command(self, run: GridRun, place: int = 0) -> tuple[list[str], dict[str, str]]:
        """A run's command, and what it adds to the environment.

        Args:
            run: Which.
            place: 0 to ``jobs`` - 1; no other run that works at the time has it.
        """
        folder, gpus = str(self.folder(run)), str(self.gpus)
        rest = []
        if self.resume and any(self.folder(run).glob('*_*.pth')):
            rest = ['--resume']
        options = [f'{KEYS[name]}={value!r}' for name, value in run.settings.items()]
        rest += ['--cfg-options', *self.option_texts, *options]
        if self.launcher == 'slurm':
            job = f'{Path(self.config).stem}_{run.name}'
            script = ['bash', str(self.tools / 'slurm_train.sh'), self.partition, job]
            environment = dict(
                GPUS=gpus,
                PYTHON=sys.executable,
                MASTER_PORT=str(self._port(run)),
            )
            return [*script, self.config, folder, *rest], environment
        environment = {}
        devices = visible_devices()
        if devices:
            mine = devices[place * self.gpus : (place + 1) * self.gpus]
            environment['CUDA_VISIBLE_DEVICES'] = ','.join(mine)
        elif 'OMP_NUM_THREADS' not in os.environ:
            threads = max(1, (os.cpu_count() or 1) // (self.jobs * self.gpus))
            environment['OMP_NUM_THREADS'] = str(threads)
        rest = ['--work-dir', folder, *rest]
        if self.gpus == 1:
            script = [sys.executable, str(self.tools / 'train.py'), self.config]
            return [*script, *rest], environment
        environment['PYTHON'] = sys.executable
        script = ['bash', str(self.tools / 'dist_train.sh'), self.config, gpus]
        return [*script, *rest], environment

    def _port(self, run: GridRun) -> int:
        """For a run's processes to meet: its own, since jobs may share a node."""
        name = str(self.folder(run).absolute()).encode()
        # Below those that systems hand out by themselves.
        return 10000 + int.from_bytes(hashlib.sha256(name).digest()[:4], 'big') % 20000

    def train(self, lock: int) -> Iterator[GridRun | None]:
        """Carry out what is waiting, ``jobs`` runs at once.

        Closing the iterator, or an exception in its loop, stops the runs at work
        with all that they started.

        Args:
            lock: File descriptor that the runs inherit, see :func:`locked`.

        Yields:
            Each run as it ends, and None a few times a second in between.

        Raises:
            ValueError: If there are fewer GPUs than ``jobs`` runs need.
        """
        devices = visible_devices() if self.launcher == 'local' else []
        if devices and self.jobs * self.gpus > len(devices):
            raise ValueError(
                f'--jobs {self.jobs} of --gpus {self.gpus} need '
                f'{self.jobs * self.gpus} GPUs; {len(devices)} are visible.'
            )
        waiting = deque(run for run in self.runs if run.status == 'waiting')
        places = deque(range(self.jobs))
        active: dict[int, tuple[GridRun, subprocess.Popen, float]] = {}
        try:
            while waiting or active:
                while waiting and places:
                    run, place = waiting.popleft(), places.popleft()
                    process = self._start(run, place, lock)
                    active[place] = run, process, time.monotonic()
                    self.save()
                yield None
                time.sleep(0.1)
                for place, (run, process, start) in list(active.items()):
                    if process.poll() is not None:
                        del active[place]
                        places.append(place)
                        self._end(run, process.returncode, time.monotonic() - start)
                        yield run
        finally:
            _stop([process for _, process, _ in active.values()])
            for run, _, _ in active.values():
                run.status, run.pid = 'waiting', None
            self.save()

    def reason(self, run: GridRun) -> str:
        """The last words of a failed run, and where the rest is."""
        lines = self.log(run).read_text(encoding='utf-8', errors='replace').split('\n')
        last = next((line.strip() for line in reversed(lines) if line.strip()), '')
        return f'{last} ({self.log(run)})'

    def progress(self, run: GridRun) -> float:
        """How much of a run is done, 0 to 1, from the end of its newest log."""
        files = sorted(self.folder(run).glob('*/vis_data/scalars.json'))
        if not files or not self.planned:
            return 0.0
        with files[-1].open('rb') as file:
            file.seek(max(0, files[-1].stat().st_size - 4096))
            rows = file.read().decode(errors='replace').splitlines()
        for text in reversed(rows):
            try:
                row = json.loads(text)
                reached = row['epoch'] - 1 if 'epoch' in row else row['step']
            except (KeyError, TypeError, ValueError):
                continue  # a part of a row
            return min(1.0, reached / self.planned)
        return 0.0

    def rows(self) -> list[tuple[list[GridRun], list[float]]]:
        """For each setting its runs, one for each seed, and the finished values."""
        settings = dict.fromkeys((run.lr, run.weight_decay) for run in self.runs)
        groups = [
            [run for run in self.runs if (run.lr, run.weight_decay) == setting]
            for setting in settings
        ]
        return [
            (runs, [run.value for run in runs if run.status == 'finished'])
            for runs in groups
        ]

    def best(self) -> GridRun | None:
        """The run with the best value; None if none is finished."""
        finished = [run for run in self.runs if run.status == 'finished']
        return self.best_of(finished, key=lambda run: run.value, default=None)

    def _start(self, run: GridRun, place: int, lock: int) -> subprocess.Popen:
        command, environment = self.command(run, place)
        if '--resume' not in command:
            shutil.rmtree(self.folder(run), ignore_errors=True)
        log = self.log(run)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open('a', encoding='utf-8') as file:
            file.write(f'$ {shlex.join(command)}\n')
            file.flush()
            process = subprocess.Popen(
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=os.environ | environment,
                start_new_session=True,  # so that all it starts can be stopped
                pass_fds=[lock],  # held until the run ends, also without us
            )
        run.status, run.pid = 'running', process.pid
        return process

    def _end(self, run: GridRun, code: int, seconds: float) -> None:
        run.status, run.pid = 'failed', None
        if code == 0:
            self._read(run, ended=True)
            if run.status == 'failed':
                with self.log(run).open('a', encoding='utf-8') as file:
                    file.write(f'The run ended without a figure {self.metric}.\n')
        run.seconds = seconds
        self.save()

    def _read(self, run: GridRun, ended: bool) -> None:
        """Take a run's figure from its log, if the run has come to its end."""
        try:
            found = read_run(self.folder(run))
        except (FileNotFoundError, ValueError):
            return
        points = found.curves.get(self.metric)
        if points and (ended or (self.planned and points[-1][0] >= self.planned)):
            run.status, run.value = 'finished', points[-1][1]
            run.seconds = found.seconds


def mean_std(values: Sequence[float]) -> str:
    """Mean ± standard deviation of just these values, as numpy's defaults."""
    if not values:
        return '—'
    return f'{statistics.fmean(values):.2f} ± {statistics.pstdev(values):.2f}'


def visible_devices() -> list[str]:
    """GPUs that runs may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get('CUDA_VISIBLE_DEVICES', '')
    names = [name for name in named.split(',') if name.strip()]
    return names[:count] if names else [str(i) for i in range(count)]


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Hold a folder's lock; a process that inherits it holds it until it ends.

    Raises:
        BlockingIOError: If another search, or a run left behind by one, holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / '.lock').open('a') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(
                f'{folder}: another search, or a run that one left behind, is still '
                f'at work here{_left_behind(folder)}. Wait for it or stop it.'
            ) from error
        yield file.fileno()


def _left_behind(folder: Path) -> str:
    """Process groups that the state names as running, for a message."""
    try:
        runs = json.loads((folder / 'grid_search.json').read_text())['runs']
        pids = [str(run['pid']) for run in runs if run['pid']]
    except (OSError, KeyError, TypeError, ValueError):
        pids = []
    return f' (process group {", ".join(pids)})' if pids else ''


def _stop(processes: list[subprocess.Popen]) -> None:
    """End runs with all that they started: ask first, then kill."""
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal_number)
        deadline = time.monotonic() + SECONDS_TO_STOP
        while any(p.poll() is None for p in processes) and time.monotonic() < deadline:
            time.sleep(0.05)


def _metric_of(cfg: Config) -> str | None:
    """The headline figure of the config's evaluator."""
    evaluators = cfg.get('val_evaluator') or []
    evaluators = evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]
    known = [METRICS.get(str(e.get('type')).split('.')[-1]) for e in evaluators]
    return next((metric for metric in known if metric), None)
