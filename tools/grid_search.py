"""Trains a config over a grid of learning rates and weight decays.

    python tools/grid_search.py CONFIG --lr 1e-4 3e-4 1e-3 --weight-decay 0.05 0.1

Every run goes through tools/train.py into a folder of its own. Started again
with the same arguments, the search goes on: what is finished is not repeated,
what was broken off or failed is started anew. At the end stand the best run,
and mean ± std, as the paper's tables 6 and 7 print them (docs/transfer.md).
"""

import argparse
import hashlib
import itertools
import json
import math
import os
import shlex
import shutil
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config, DictAction
from rich.console import Console

from mmdtm.cli.scripts import script, script_parser
from mmdtm.io import write_text
from mmdtm.process_pool import Job, ProcessPool
from mmdtm.report import read_run, write_result
from mmdtm.report.text import markdown_table

KEYS = dict(
    lr='optim_wrapper.optimizer.lr',
    weight_decay='optim_wrapper.optimizer.weight_decay',
    seed='randomness.seed',
)
SHORT = dict(lr='lr', weight_decay='wd', seed='seed')  # in names of folders
METRICS = dict(Accuracy='accuracy/top1', IoUMetric='mIoU')  # of evaluators


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Command line; ``left_out`` has the values that are not numbers."""
    parser = script_parser(__doc__)
    add = parser.add_argument
    add('config', help='any mmengine config')
    add('--lr', nargs='+')
    add('--weight-decay', nargs='+', metavar='WD')
    add('--seeds', nargs='+', metavar='SEED')
    add('--metric', help="value of the last validation to compare; the evaluator's own")
    add('--work-dir', type=Path, help='work_dirs/grid_search/<config name> by default')
    add('--jobs', type=int, help='runs at once; by default 1, and all with Slurm')
    add('--gpus', type=int, default=1, help='GPUs of each run')
    launchers = ['local', 'slurm']
    add('--launcher', choices=launchers, default='local', help='what starts the runs')
    add('--partition', help='of Slurm')
    add('--smoke', action='store_true', help='try it: small models on made images')
    add('--dry-run', action='store_true', help='print the commands and end')
    add('--force', action='store_true', help='forget what the folder holds')
    text = 'go on from checkpoints; saves time, but is not quite an unbroken search'
    add('--resume', action='store_true', help=text)
    text = 'folder with the train.py, dist_train.sh and slurm_train.sh to run'
    add('--tools', type=Path, default=Path(__file__).resolve().parent, help=text)
    add('--cfg-options', nargs='+', action='extend', default=[], metavar='KEY=VALUE')
    args = parser.parse_args(argv)
    args.left_out = []
    for name, cast in (('lr', float), ('weight_decay', float), ('seeds', int)):
        texts = getattr(args, name)
        if texts is not None:
            option = f'--{name.replace("_", "-")}'
            numbers = read_numbers(option, texts, cast, args.left_out)
            if not numbers:
                parser.error(f'{option}: no value is left')
            setattr(args, name, numbers)
    if args.lr is None and args.weight_decay is None and args.seeds is None:
        parser.error('nothing to search: give --lr, --weight-decay or --seeds')
    if args.launcher == 'slurm' and not args.partition:
        parser.error('--launcher slurm needs --partition')
    if args.gpus < 1 or (args.jobs is not None and args.jobs < 1):
        parser.error('--gpus and --jobs must be 1 or more')
    if args.work_dir is None:
        args.work_dir = Path('work_dirs/grid_search') / Path(args.config).stem
    return args


def read_numbers(option: str, texts: list[str], cast: type, left_out: list) -> list:
    """Values of a grid; what is not a number is named, and left out."""
    numbers = []
    for text in texts:
        try:
            value = cast(text)
        except ValueError:
            value = math.nan
        if math.isfinite(value) and value >= 0:
            numbers.append(value)
            continue
        left_out.append(text)
        print(
            f'{option}: {text!r} is not a number of 0 or more and is left out; give '
            'values as 3e-4, 0.05 or 7, with spaces between them',
            file=sys.stderr,
        )
    return numbers


@dataclass
class GridRun:
    """One point of the grid with one seed; None leaves the config's own value."""

    lr: float | None
    weight_decay: float | None
    seed: int | None
    value: float | None = None  # of the last validation, once it is finished
    problem: str = ''  # why it failed

    @property
    def settings(self) -> dict[str, float]:
        """What is searched, by the names of ``KEYS``."""
        pairs = {name: getattr(self, name) for name in KEYS}
        return {name: value for name, value in pairs.items() if value is not None}

    @property
    def name(self) -> str:
        """Of its folder, such as ``lr0.0003_wd0.05_seed1``."""
        return '_'.join(f'{SHORT[k]}{v!r}' for k, v in self.settings.items())


class GridSearch:
    """The runs that the arguments ask for, as the jobs of a process pool.

    Raises:
        FileNotFoundError: If there is no such config.
        ValueError: If it has no optimizer, or no known evaluator and no ``--metric``
            is given, or if there are too few GPUs.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.config = args, read_config(args.config, args.cfg_options)
        self.metric = args.metric or metric_of(self.config)
        if self.metric is None:
            raise ValueError(
                f'{args.config}: its evaluator is none of {", ".join(METRICS)}. Name '
                'the value to compare with --metric.'
            )
        # Of a loss, less is better.
        self.best_of = min if self.metric.split('/')[-1].startswith('loss') else max
        axes = [
            [None] if values is None else list(dict.fromkeys(values))
            for values in (args.lr, args.weight_decay, args.seeds)
        ]
        self.runs = {
            run.name: run
            for run in itertools.starmap(GridRun, itertools.product(*axes))
        }
        self.jobs = args.jobs or (len(self.runs) if args.launcher == 'slurm' else 1)
        jobs = [self.job(run) for run in self.runs.values()]
        self.pool = ProcessPool(jobs, args.work_dir, self.places())

    def folder(self, run: GridRun) -> Path:
        """Where a run's logs and checkpoints go."""
        return self.args.work_dir / run.name

    def value(self, run: GridRun) -> float | None:
        """The last value of the metric in a run's log."""
        try:
            points = read_run(self.folder(run)).curves.get(self.metric)
        except (FileNotFoundError, ValueError):
            return None
        return points[-1][1] if points else None

    def resumes(self, run: GridRun) -> bool:
        """Whether an unfinished run goes on from a checkpoint."""
        wanted = self.args.resume and not self.args.force
        return wanted and any(self.folder(run).glob('*_*.pth'))

    def places(self) -> list[dict[str, str]]:
        """The environment of each of the runs at work at a time: GPUs or threads."""
        local, needed = self.args.launcher == 'local', self.jobs * self.args.gpus
        devices = visible_devices() if local else []
        if devices and needed > len(devices):
            raise ValueError(
                f'--jobs {self.jobs} of --gpus {self.args.gpus} need {needed} GPUs; '
                f'{len(devices)} are visible. Lower one of the two.'
            )
        if devices:
            each = self.args.gpus
            parts = [devices[i * each :][:each] for i in range(self.jobs)]
            return [dict(CUDA_VISIBLE_DEVICES=','.join(part)) for part in parts]
        if local and 'OMP_NUM_THREADS' not in os.environ:
            threads = max(1, (os.cpu_count() or 1) // needed)
            return [dict(OMP_NUM_THREADS=str(threads))] * self.jobs
        return [{}] * self.jobs

    def job(self, run: GridRun) -> Job:
        """A run's command."""
        args, folder = self.args, self.folder(run)
        settings = [f'{KEYS[name]}={value!r}' for name, value in run.settings.items()]
        rest = ['--smoke'] * args.smoke + ['--resume'] * self.resumes(run)
        rest += ['--cfg-options', *args.cfg_options, *settings]
        environment = dict(PYTHON=sys.executable)
        if args.launcher == 'slurm':
            name = f'{Path(args.config).stem}_{run.name}'
            start = ['bash', args.tools / 'slurm_train.sh', args.partition, name]
            command = [*start, args.config, folder, *rest]
            environment.update(GPUS=str(args.gpus), MASTER_PORT=port(folder))
        elif args.gpus > 1:
            start = ['bash', args.tools / 'dist_train.sh', args.config, str(args.gpus)]
            command = [*start, '--work-dir', folder, *rest]
        else:
            start = [sys.executable, args.tools / 'train.py', args.config]
            command, environment = [*start, '--work-dir', folder, *rest], {}
        lacks = f'ended without a value {self.metric}'
        return Job(
            run.name,
            command,
            key='smoke ' * args.smoke
            + json.dumps(self.config.to_dict(), sort_keys=True, default=str),
            missing=lambda: lacks if self.value(run) is None else '',
            environment=environment,
        )

    def prepare(self) -> None:
        """Read what an earlier start has finished; clear away what it left undone.

        Raises:
            ValueError: If the folder holds a search with another config.
        """
        ours = set(self.pool.keys.values())
        if any(record[0] not in ours for record in self.pool.records().values()):
            raise ValueError(
                f'{self.args.work_dir} holds a search whose config or --cfg-options '
                'were others. Name another folder with --work-dir.'
            )
        waiting = {job.name for job in self.pool.waiting()}
        for run in self.runs.values():
            if run.name not in waiting:
                run.value = self.value(run)
            elif not self.resumes(run):
                shutil.rmtree(self.folder(run), ignore_errors=True)

    def train(self, console: Console) -> None:
        """Carry out what is not finished, and say what becomes of each run."""
        with self.pool as pool:
            if self.args.force:
                pool.forget()
            self.prepare()
            done = sum(run.value is not None for run in self.runs.values())
            if done:
                console.print(f'{done} of {len(self.runs)} runs are finished.')
            for job, problem in pool.run(console):
                run = self.runs[job.name]
                if problem:
                    last, log = pool.tail(run.name, 1), pool.log(run.name)
                    run.problem = f'{run.name} failed, {problem}: {last} ({log})'
                else:
                    run.value = self.value(run)
                said = run.problem or f'{run.name}: {self.metric} {run.value:.2f}'
                console.print(said, highlight=False, markup=False, soft_wrap=True)

    def conclude(self) -> str:
        """Write the table, the best run and the mean, and a row for the report."""
        groups: dict[tuple, list[GridRun]] = {}
        for run in self.runs.values():
            groups.setdefault((run.lr, run.weight_decay), []).append(run)
        rows = []
        for setting, runs in groups.items():
            values = [run.value for run in runs if run.value is not None]
            rows.append(
                [
                    *("config's" if v is None else f'{v:g}' for v in setting),
                    f'{len(values)} of {len(runs)}',
                    mean_std(values),
                    f'{self.best_of(values):.2f}' if values else '—',
                ]
            )
        header = ['lr', 'weight decay', 'runs', 'mean ± std', 'best']
        lines = [f'# {self.metric}', '', *markdown_table(header, rows)]
        finished = [run for run in self.runs.values() if run.value is not None]
        if finished:
            best = self.best_of(finished, key=lambda run: run.value)
            values = [run.value for run in finished]
            settings = {k.replace('_', ' '): v for k, v in best.settings.items()}
            where = ', '.join(f'{name} {value:g}' for name, value in settings.items())
            lines += ['', f'Best: {best.value:.2f} ({where})']
            lines += ['', f'Whole grid: {mean_std(values)} over {len(values)} runs']
            name = Path(self.args.config).stem
            spread = dict(mean=statistics.fmean(values), std=statistics.pstdev(values))
            write_result(
                self.args.work_dir,
                'grid search',
                name,
                {self.metric: best.value, **spread},
                seconds=sum(self.pool.seconds(run.name) for run in finished),
                config=name,
                settings=settings,
                finished=len(finished) == len(self.runs),
            )
        text = '\n'.join(lines) + '\n'
        write_text(self.args.work_dir / 'grid_search.md', text)
        return text

    def print_commands(self) -> None:
        """What would be run; finished runs as comments."""
        for index, job in enumerate(self.pool.jobs):
            variables = self.pool.places[index % self.jobs] | job.environment
            parts = [f'{name}={value}' for name, value in variables.items()]
            done = '# finished: ' if self.pool.finished(job) else ''
            print(done + ' '.join([*parts, shlex.join(map(str, job.command))]))


def read_config(path: str, options: Sequence[str]) -> Config:
    """A config that can be searched, with options ``KEY=VALUE`` merged into it."""
    if not Path(path).is_file():
        raise FileNotFoundError(f'{path}: no such config. Check the path.')
    cfg = Config.fromfile(path, import_custom_modules=False)
    parsed = argparse.Namespace()
    DictAction([], 'options')(None, parsed, options)
    cfg.merge_from_dict(parsed.options)
    if 'optimizer' not in (cfg.get('optim_wrapper') or {}):
        raise ValueError(
            f'{path} has no optim_wrapper.optimizer, so there is no learning rate to '
            'search. Give a config that trains.'
        )
    return cfg


def metric_of(cfg: Config) -> str | None:
    """The headline value of the config's evaluator."""
    evaluators = cfg.get('val_evaluator') or []
    evaluators = evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]
    known = [METRICS.get(str(e.get('type')).split('.')[-1]) for e in evaluators]
    return next((metric for metric in known if metric), None)


def visible_devices() -> list[str]:
    """GPUs that runs may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get('CUDA_VISIBLE_DEVICES', '')
    names = [name for name in named.split(',') if name.strip()]
    return names[:count] if names else [str(i) for i in range(count)]


def port(folder: Path) -> str:
    """For a run's processes to meet: its own, since Slurm's jobs may share a node."""
    digest = hashlib.sha256(str(folder.absolute()).encode()).digest()
    # Below those that systems hand out by themselves.
    return str(10000 + int.from_bytes(digest[:4], 'big') % 20000)


def mean_std(values: Sequence[float]) -> str:
    """Mean ± standard deviation of just these values, as numpy's defaults."""
    if not values:
        return '—'
    return f'{statistics.fmean(values):.2f} ± {statistics.pstdev(values):.2f}'


@script
def main(argv: list[str] | None = None) -> int:
    """0 if every run is finished, 1 if one failed or the search cannot start."""
    args, console = parse_args(argv), Console()
    search = GridSearch(args)
    if args.dry_run:
        search.print_commands()
        return 0
    try:
        search.train(console)
    except KeyboardInterrupt:
        stopped = 'Stopped. The same command goes on from the runs that are finished.'
        print(stopped, file=sys.stderr)
        return 130
    console.print(search.conclude(), highlight=False, markup=False, soft_wrap=True)
    problems = [run.problem for run in search.runs.values() if run.problem]
    print(*problems, sep='\n', end='\n' * bool(problems))
    return int(bool(problems or args.left_out))


if __name__ == '__main__':
    sys.exit(main())
