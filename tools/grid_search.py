"""Trains a config over a grid of learning rates and weight decays.

    python tools/grid_search.py CONFIG --lr 1e-4 3e-4 1e-3 --weight-decay 0.05 0.1

Every run goes through tools/train.py into a folder of its own. Started again
with the same arguments, the search goes on: what is finished is not repeated,
what was broken off or failed is started anew. At the end stand the best run,
and mean ± std, as the paper's tables 6 and 7 print them (docs/transfer.md).
"""

import argparse
import math
import shlex
import signal
import statistics
import sys
from contextlib import closing
from pathlib import Path

from mmengine.config import DictAction
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from mmdtm.grid_search import GridRun, GridSearch, locked, mean_std
from mmdtm.io import write_text
from mmdtm.report import write_result
from mmdtm.report.text import markdown_table

HEADER = ['lr', 'weight decay', 'runs', 'mean ± std', 'best']


class Values(argparse.Action):
    """Values of a grid from their texts; what is no number is named and left out."""

    def __call__(self, parser, namespace, values, option_string=None):
        cast = int if self.dest == 'seeds' else float
        numbers = []
        for text in values:
            try:
                value = cast(text)
            except ValueError:
                value = math.nan
            if math.isfinite(value) and value >= 0:
                numbers.append(value)
                continue
            namespace.left_out.append(text)
            print(
                f'{option_string}: {text!r} is not a number of 0 or more and is left '
                'out; give values as 3e-4, 0.05 or 7, with spaces between them',
                file=sys.stderr,
            )
        if not numbers:
            parser.error(f'{option_string}: no value is left')
        setattr(namespace, self.dest, numbers)


class KeepText(DictAction):
    """Merges as mmengine does, and keeps the text to hand it on."""

    def __call__(self, parser, namespace, values, option_string=None):
        namespace.option_texts = [*namespace.option_texts, *values]
        super().__call__(parser, namespace, values, option_string)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    summary, _, more = __doc__.partition('\n\n')
    parser = argparse.ArgumentParser(
        description=summary,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', help='any mmengine config')
    parser.add_argument('--lr', nargs='+', action=Values, metavar='LR')
    parser.add_argument('--weight-decay', nargs='+', action=Values, metavar='WD')
    parser.add_argument('--seeds', nargs='+', action=Values, metavar='SEED')
    parser.add_argument(
        '--metric', help="figure of the last validation to compare; the evaluator's own"
    )
    parser.add_argument(
        '--work-dir', type=Path, help='work_dirs/grid_search/<config name> by default'
    )
    parser.add_argument(
        '--jobs', type=int, help='runs at once; by default 1, and all with Slurm'
    )
    parser.add_argument('--gpus', type=int, default=1, help='GPUs of each run (1)')
    parser.add_argument('--launcher', choices=['local', 'slurm'], default='local')
    parser.add_argument('--partition', help='of Slurm')
    parser.add_argument(
        '--resume',
        action='store_true',
        help='go on from the checkpoint of a run that was broken off; that saves '
        'time, but the run is then not quite that of an unbroken search',
    )
    parser.add_argument(
        '--force',
        action='store_true',
        help='repeat finished runs, too, and forget what the folder holds',
    )
    parser.add_argument(
        '--dry-run', action='store_true', help='print the commands and end'
    )
    parser.add_argument(
        '--tools',
        type=Path,
        default=Path(__file__).resolve().parent,
        help='folder with the train.py, dist_train.sh and slurm_train.sh to run',
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=KeepText, default={}, metavar='KEY=VALUE'
    )
    parser.set_defaults(option_texts=[], left_out=[])
    args = parser.parse_args(argv)
    if args.lr is None and args.weight_decay is None and args.seeds is None:
        parser.error('nothing to search: give --lr, --weight-decay or --seeds')
    if args.launcher == 'slurm' and not args.partition:
        parser.error('--launcher slurm needs --partition')
    if args.gpus < 1 or (args.jobs is not None and args.jobs < 1):
        parser.error('--gpus and --jobs must be 1 or more')
    if args.work_dir is None:
        args.work_dir = Path('work_dirs/grid_search') / Path(args.config).stem
    return args


def build(args: argparse.Namespace) -> GridSearch:
    """The search that the arguments ask for."""
    return GridSearch(
        args.config,
        args.work_dir,
        lrs=args.lr,
        weight_decays=args.weight_decay,
        seeds=args.seeds,
        metric=args.metric,
        cfg_options=args.cfg_options,
        option_texts=args.option_texts,
        launcher=args.launcher,
        partition=args.partition,
        jobs=args.jobs,
        gpus=args.gpus,
        resume=args.resume,
        tools=args.tools,
    )


def print_commands(search: GridSearch) -> None:
    """What would be run; finished runs as comments."""
    search.recall()
    for index, run in enumerate(search.runs):
        command, environment = search.command(run, index % search.jobs)
        parts = [f'{name}={value}' for name, value in environment.items()]
        done = '# finished: ' if run.status == 'finished' else ''
        print(done + ' '.join([*parts, shlex.join(command)]))


def train(search: GridSearch, lock: int, console: Console) -> None:
    """Carry out the search, with a bar for the grid and one for each run at work."""
    waiting = [run for run in search.runs if run.status == 'waiting']
    if len(waiting) < len(search.runs):
        done = len(search.runs) - len(waiting)
        console.print(f'{done} of {len(search.runs)} runs are finished.')
    columns = (
        TextColumn('{task.description}'),
        BarColumn(),
        TextColumn('{task.percentage:>3.0f} %'),
        TimeRemainingColumn(),
    )
    with (
        Progress(*columns, console=console, transient=True) as progress,
        closing(search.train(lock)) as ended,
    ):
        grid = progress.add_task('grid', total=len(waiting))
        bars = {}
        for run in ended:
            if run is not None:
                console.print(outcome(search, run), highlight=False, soft_wrap=True)
            parts = 0.0
            for one in waiting:
                if one.status == 'running':
                    if one.name not in bars:
                        bars[one.name] = progress.add_task(one.name, total=1)
                    part = search.progress(one)
                    progress.update(bars[one.name], completed=part)
                    parts += part
                elif one.status != 'waiting':
                    parts += 1
                    if one.name in bars:
                        progress.remove_task(bars.pop(one.name))
            progress.update(grid, completed=parts)


def outcome(search: GridSearch, run: GridRun) -> str:
    """What became of a run, in a line."""
    if run.status == 'finished':
        return f'{run.name}: {search.metric} {run.value:.2f}'
    return f'[red]{run.name} failed[/]: {escape(search.reason(run))}'


def conclude(search: GridSearch, console: Console) -> None:
    """Print and write the table, the best, and a row for the report."""
    rows = []
    for runs, values in search.rows():
        setting = (runs[0].lr, runs[0].weight_decay)
        rows.append(
            [
                *("config's" if value is None else f'{value:g}' for value in setting),
                f'{len(values)} of {len(runs)}',
                mean_std(values),
                f'{search.best_of(values):.2f}' if values else '—',
            ]
        )
    table = Table(*HEADER, title=f'{search.metric} of {search.config}')
    for row in rows:
        table.add_row(*row)
    console.print(table)
    lines = [f'# {search.metric}', '', *markdown_table(HEADER, rows)]
    best = search.best()
    if best is not None:
        finished = [run for run in search.runs if run.status == 'finished']
        values = [run.value for run in finished]
        settings = {k.replace('_', ' '): v for k, v in best.settings.items()}
        where = ', '.join(f'{name} {value:g}' for name, value in settings.items())
        last = [
            f'Best: {best.value:.2f} ({where})',
            f'Whole grid: {mean_std(values)} over {len(values)} runs',
        ]
        console.print(*last, sep='\n', highlight=False)
        lines += ['', last[0], '', last[1]]
        write_result(
            search.work_dir,
            'grid search',
            Path(search.config).stem,
            {
                search.metric: best.value,
                'mean': statistics.fmean(values),
                'std': statistics.pstdev(values),
            },
            seconds=sum(run.seconds or 0.0 for run in finished),
            config=Path(search.config).stem,
            settings=settings,
            finished=len(finished) == len(search.runs),
        )
    write_text(search.work_dir / 'grid_search.md', '\n'.join(lines) + '\n')
    for run in search.runs:
        if run.status == 'failed':
            console.print(outcome(search, run), highlight=False, soft_wrap=True)


def main(argv: list[str] | None = None) -> int:
    """0 if every run is finished, 1 if one failed or the search cannot start."""
    args = parse_args(argv)
    console = Console()
    # Asked to end, by a batch system for one, stop the runs as on Ctrl-C.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        search = build(args)
        if args.dry_run:
            print_commands(search)
            return 0
        with locked(search.work_dir) as lock:
            if not args.force:
                search.recall()
            train(search, lock, console)
            conclude(search, console)
    except (FileNotFoundError, ValueError, BlockingIOError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            'Stopped. The same command goes on from the runs that are finished.',
            file=sys.stderr,
        )
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)
    unfinished = any(run.status != 'finished' for run in search.runs)
    return int(unfinished or bool(args.left_out))


if __name__ == '__main__':
    sys.exit(main())
