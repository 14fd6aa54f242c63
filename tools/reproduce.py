"""Print or run the commands behind a table or figure of the paper.

    python tools/reproduce.py 8                    # the commands, and what is done
    python tools/reproduce.py 4 baseline ViT-S     # of the rows with these words
    python tools/reproduce.py 8 --run              # start or go on
    python tools/reproduce.py all --run --smoke    # try all of it on a CPU, in minutes

The chain is pre-train, fine-tune or probe, test, report; what tables share is run
once. With --run what is finished is not repeated, and what was broken off is
resumed (docs/tables.md).
"""

import argparse
import os
import shlex
import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmdtm.cli.scripts import script, script_parser
from mmdtm.process_pool import Job, ProcessPool
from mmdtm.report import Report, find_runs
from mmdtm.report.paper import paper_tables
from mmdtm.reproduce import FIGURES, ROOT, Plan, Step


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = script_parser(__doc__)
    add = parser.add_argument
    targets = [*paper_tables(), *(name.replace(' ', '') for name in FIGURES)]
    choices, text = [*targets, 'all'], f'{", ".join(targets)}, or all'
    add('table', choices=choices, metavar='TABLE', help=text)
    text = 'words of a row and column, such as: DTM ViT-B'
    add('row', nargs='*', metavar='WORD', help=text)
    add('--run', action='store_true', help='run what is not done')
    text = 'small models, made images, two steps'
    add('--smoke', action='store_true', help=text)
    add('--gpus', type=int, default=8, help='GPUs of one run')
    text = 'folder of all runs (work_dirs/tables, or tables-smoke)'
    add('--work-dir', type=Path, help=text)
    args = parser.parse_args(argv)
    if args.gpus < 1:
        parser.error(f'--gpus is {args.gpus}; at least one is needed.')
    default = ROOT / 'work_dirs' / ('tables-smoke' if args.smoke else 'tables')
    args.work_dir = (args.work_dir or default).resolve()
    return args


def make_plan(args: argparse.Namespace) -> Plan:
    """The steps that the arguments ask for, the report last."""
    plan = Plan(args.work_dir, args.smoke, args.gpus)
    names = {name.replace(' ', ''): name for name in (*paper_tables(), *FIGURES)}
    for target in names if args.table == 'all' else [args.table]:
        plan.add(names[target], args.row)
    plan.add_report()
    return plan


def unfinished(plan: Plan) -> dict[str, Step]:
    """Steps that are not done, and those that rest on them."""
    waiting: dict[str, Step] = {}
    for name, step in plan.steps.items():
        rests_on_others = not waiting.keys().isdisjoint(step.needs)
        if name == 'report' or rests_on_others or step.lacks():
            waiting[name] = step
    return waiting


def show(plan: Plan, console: Console) -> None:
    """Print the chain as a shell script; what is done as comments."""
    waiting = unfinished(plan)
    for name, step in plan.steps.items():
        console.print(f'# {step.title}' + ': done' * (name not in waiting))
        line = shlex.join(step.to_run())
        console.print(line if name in waiting else f'# {line}')


def run(plan: Plan, args: argparse.Namespace, console: Console) -> int:
    """Carry out what is not done; 1 if a step failed."""
    waiting = unfinished(plan)
    done = len(plan.steps) - len(waiting)
    if done:
        console.print(f'{done} of {len(plan.steps)} steps were done before.')
    jobs = [
        Job(
            name.replace('/', '+'),
            [sys.executable if word == 'python' else word for word in step.to_run()],
            step.title,
            [need.replace('/', '+') for need in step.needs if need in waiting],
            missing=step.lacks,
            seconds=10.0 if args.smoke else 3600.0,
        )
        for name, step in waiting.items()
    ]
    places = [dict(PYTHON=sys.executable)]
    if args.smoke:  # a process for each core, whatever GPUs there are
        small = dict(OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')
        places = [places[0] | small] * len(os.sched_getaffinity(0))
    failed = 0
    with ProcessPool(jobs, args.work_dir / 'jobs', places, ROOT) as pool:
        for job, problem in pool.run(console):
            if problem:
                failed += 1
                console.print(
                    f'{job.title} {problem}. The end of {pool.log(job.name)}:\n'
                    f'{pool.tail(job.name, 5)}',
                    style='red',
                    markup=False,
                    highlight=False,
                    soft_wrap=True,
                )
            else:
                console.print(job.title, highlight=False)
    show_values(plan, console)
    left = len(unfinished(plan)) - 1  # but the report
    if left:
        console.print(f'{left} steps are not done; the same command goes on.')
    return 1 if failed else 0


def show_values(plan: Plan, console: Console) -> None:
    """Print what the paper prints beside what the runs came to."""
    if not plan.cells:
        return  # a figure
    report = Report(*find_runs([plan.root]))
    table = Table('table', 'row', 'column', 'paper', 'here')
    for cell in plan.cells:
        texts = (cell.table, cell.row, cell.column, str(cell), report.ours(cell) or '—')
        table.add_row(*map(escape, texts))
    console.print(table)


@script
def main(argv: list[str] | None = None) -> int:
    args, console = parse_args(argv), Console(soft_wrap=True, highlight=False)
    plan = make_plan(args)
    if not args.run:
        show(plan, console)
        return 0
    try:
        return run(plan, args, console)
    except KeyboardInterrupt:
        console.print('Interrupted; the same command goes on from here.')
        return 130


if __name__ == '__main__':
    sys.exit(main())
