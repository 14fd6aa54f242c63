"""The whole path on the toy dataset: no GPU, no download of data or weights.

Draws scenes, trains a small CLIP on their captions, pre-trains a small ViT
against it with DTM and with the token-wise baseline, and measures both beside a
random start by linear probe, k-NN and fine-tuning. With --full all of this is
longer, and there are segmentation with UperNet, the CLIP's patches with and without
morphing, and a small grid search. Every part is the one that trains the big models,
with the configs beside it. Writes work_dirs/quickstart/: the tables as results.md
and results.json, images, and the report of all its runs.

    make quickstart
    .venv/bin/python examples/toy/quickstart.py --full --seeds 3

Interrupted, it goes on where it was: finished stages are not repeated.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

from plan import (
    FULL,
    LANES,
    PICTURES,
    PRETRAIN,
    QUICK,
    ROOT,
    SHORT,
    STARTS,
    Plan,
    closing_stages,
    data_stage,
    threads,
)
from rich.console import Console
from rich.table import Table

from mmdtm.cli.scripts import script_parser
from mmdtm.io import write_text
from mmdtm.process_pool import Job, ProcessPool
from mmdtm.report import build_report, write_result
from mmdtm.report.text import markdown_table, spread_text
from mmdtm.training_log import read_training_log

START_FIGURES = {
    'linear_top1': 'linear probe\ntop-1 (%)',
    'knn_top1': 'k-NN\ntop-1 (%)',
    'finetune_top1': 'fine-tuned\ntop-1 (%)',
    'mIoU': 'UperNet\nmIoU (%)',
    'pretrain_seconds': 'trained\n(s)',
}

PATCHES = {
    'without': 'patches',
    'with': 'patches, morphed',
    'image': "CLIP's image feature",
}
PATCH_FIGURES = {
    'zero_shot': 'zero-shot\ntop-1 (%)',
    'right_patches': 'right\npatches (%)',
    'linear_probe': 'linear probe\ntop-1 (%)',
}

# The rows and columns of a table, by where a seed's figures have it.
TABLES = {'starts': (STARTS, START_FIGURES), 'patches': (PATCHES, PATCH_FIGURES)}


def figures_of(plan: Plan, pool: ProcessPool) -> dict:
    """The tables of a seed, from what its stages wrote."""
    clip = json.loads((plan.clip / 'metrics.json').read_text())
    rows = {}
    for start in STARTS:
        row = json.loads((plan.folder / f'{start}_probe.json').read_text())
        row = {key: row[key] for key in ('linear_top1', 'knn_top1')}
        for key, task, metric in (
            ('finetune_top1', 'finetune', 'accuracy/top1'),
            ('mIoU', 'segment', 'mIoU'),
        ):
            if task not in plan.tour.tasks:
                continue
            log = read_training_log(plan.folder / f'{start}_{task}')
            row[key] = log.val[-1][metric]
        if start in PRETRAIN:
            row['pretrain_seconds'] = pool.seconds(plan.name(start))
        rows[start] = row
    tables = dict(starts=rows)
    if plan.tour.full:
        file = plan.folder / 'patches.json'
        tables['patches'] = json.loads(file.read_text())['results']
    return dict(seed=plan.seed, clip_zero_shot_top1=clip['zero_shot_top1'], **tables)


def columns(seeds: list[dict], part: str) -> dict[str, str]:
    """The titles of those columns of a table that have a value."""
    known = {key for seed in seeds for row in seed[part].values() for key in row}
    return {key: title for key, title in TABLES[part][1].items() if key in known}


def rows_of(seeds: list[dict], part: str) -> list[list[str]]:
    """A table's rows as they are printed: title, then figures over the seeds."""
    titles, keys = TABLES[part][0], columns(seeds, part)
    rows = []
    for row, title in titles.items():
        cells = []
        for key in keys:
            values = [seed[part][row][key] for seed in seeds if key in seed[part][row]]
            cells.append(spread_text(values, 0 if key == 'pretrain_seconds' else 1))
        rows.append([title, *cells])
    return rows


def caption(args: argparse.Namespace, seeds: list[dict], part: str) -> str:
    """What a table's figures are."""
    over = f'Mean ± standard deviation of {args.seeds} seeds. ' * (args.seeds > 1)
    quick = ' Cut short by --quick: the figures mean nothing.' * args.quick
    if part == 'patches':
        return (
            f"{over}What the small CLIP's patches say of an image, 64 of them, or 32 "
            f'groups after morphing.{quick}'
        )
    zero_shot = statistics.fmean(seed['clip_zero_shot_top1'] for seed in seeds)
    return (
        f'{over}10 classes of scenes, so chance is 10 %; the teacher, a small CLIP, '
        f'classifies {zero_shot:.1f} % zero-shot.{quick}'
    )


def write_results(args: argparse.Namespace, seeds: list[dict]) -> None:
    """results.json and results.md."""
    content = dict(
        quick=args.quick, seeds=[seed['seed'] for seed in seeds], figures=seeds
    )
    write_text(args.work_dir / 'results.json', json.dumps(content, indent=2) + '\n')
    lines = []
    for part in [part for part in TABLES if part in seeds[0]]:
        heads = [title.replace('\n', ' ') for title in columns(seeds, part).values()]
        lines += markdown_table(['', *heads], rows_of(seeds, part))
        lines += ['', caption(args, seeds, part), '']
    write_text(args.work_dir / 'results.md', '\n'.join(lines).rstrip() + '\n')


def write_report(args: argparse.Namespace, seeds: list[dict]) -> Path:
    """The page of all runs, with the pictures."""
    zero_shot = statistics.fmean(seed['clip_zero_shot_top1'] for seed in seeds)
    write_result(
        args.work_dir,
        'zero-shot',
        'small CLIP, the teacher',
        {'zero-shot top-1 (%)': zero_shot},
        pictures=[
            dict(file=name, caption=text)
            for name, text in PICTURES.items()
            if (args.work_dir / name).exists()
        ],
    )
    return build_report([args.work_dir], args.work_dir / 'report').html


def show(args: argparse.Namespace, seeds: list[dict], console: Console) -> None:
    """Print the tables."""
    for part in [part for part in TABLES if part in seeds[0]]:
        table = Table(caption=caption(args, seeds, part), caption_justify='left')
        table.add_column('', no_wrap=True)
        for title in columns(seeds, part).values():
            table.add_column(title, justify='right')
        for row in rows_of(seeds, part):
            table.add_row(*row)
        console.print(table)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = script_parser(__doc__)
    add = parser.add_argument
    text = 'results: work_dirs/quickstart, with --full work_dirs/quickstart-full'
    add('--work-dir', type=Path, help=text)
    text = 'where scenes are drawn: data/toy-short, with --full data/toy'
    add('--data', type=Path, help=text)
    text = 'longer training, segmentation, a grid search and more: 30 CPU-minutes'
    add('--full', action='store_true', help=text)
    add('--seed', type=int, default=0, help='the first seed')
    add('--seeds', type=int, default=1, help='how many seeds')
    add('--force', action='store_true', help='repeat finished stages, too')
    text = 'cut every stage of the full tour short: to see that all of it runs'
    add('--quick', action='store_true', help=text)
    args = parser.parse_args(argv)
    args.tour = QUICK if args.quick else FULL if args.full else SHORT
    names = (
        ('quickstart-full', 'toy') if args.tour.full else ('quickstart', 'toy-short')
    )
    args.work_dir = args.work_dir or ROOT / 'work_dirs' / names[0]
    args.data = args.data or ROOT / 'data' / names[1]
    if args.seeds < 1:
        parser.error(f'--seeds is {args.seeds}; at least one is needed')
    args.work_dir, args.data = args.work_dir.resolve(), args.data.resolve()
    return args


def outcome(job: Job) -> str:
    """The values that a stage has measured, or the images that it has made."""
    for path in job.makes:
        if path.name == 'metrics.json':
            return f'{json.loads(path.read_text())["zero_shot_top1"]:.1f} % zero-shot'
        if path.name.endswith('_probe.json'):
            row = json.loads(path.read_text())
            return f'{row["linear_top1"]:.1f} % and {row["knn_top1"]:.1f} %'
    images = [path for path in job.makes if path.suffix == '.png']
    return ' '.join(os.path.relpath(path) for path in images)


def run(pool: ProcessPool, force: bool, console: Console) -> None:
    """Carry out the stages; the first that fails ends the others.

    Raises:
        ChildProcessError: If one fails; the message has the end of its log.
    """
    with pool:
        if force:
            pool.forget()
        done = len(pool.jobs) - len(pool.waiting())
        if done:
            console.print(
                f'{done} of {len(pool.jobs)} stages were finished before '
                '(--force repeats them)'
            )
        for job, problem in pool.run(console):
            if problem:
                raise ChildProcessError(
                    f'{pool.tail(job.name, 25)}\n\n{job.title} {problem}.\n'
                    f'Its log: {pool.log(job.name)}\n'
                    f'Its command: {" ".join(map(str, job.command))}'
                )
            line = f'{job.title:<34}{pool.seconds(job.name):>6.0f} s  {outcome(job)}'
            console.print(line.rstrip(), highlight=False, soft_wrap=True)


def main() -> int:
    args, console, start = parse_args(), Console(), time.time()
    plans = [Plan(args, args.seed + i) for i in range(args.seeds)]
    jobs = [data_stage(args)] + [stage for plan in plans for stage in plan.stages()]
    jobs += closing_stages(plans[0])
    pool = ProcessPool(jobs, args.work_dir, [threads(LANES)] * LANES, ROOT)
    try:
        run(pool, args.force, console)
    except (ChildProcessError, BlockingIOError) as error:
        console.print(
            str(error), style='red', markup=False, highlight=False, soft_wrap=True
        )
        return 1
    except KeyboardInterrupt:
        console.print('Interrupted; the same command goes on from here.')
        return 130
    seeds = [figures_of(plan, pool) for plan in plans]
    write_results(args, seeds)
    show(args, seeds, console)
    page = write_report(args, seeds)
    console.print(
        f'{(time.time() - start) / 60:.1f} minutes. The pictures and the tables are in '
        f'{args.work_dir}, and all runs with their curves on one page:\n{page}',
        highlight=False,
        soft_wrap=True,
    )
    return 0


if __name__ == '__main__':
    sys.exit(main())
