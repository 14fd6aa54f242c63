"""Collects finished runs of any kind into one table beside the paper's figures.

    python tools/report.py work_dirs/

Writes report.md, report.json and report.html into --out. The page has the
curves, sorts and filters, and opens without a network (docs/report.md).
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmdtm.cli.scripts import script, script_parser
from mmdtm.report import Report, build_report
from mmdtm.report.report import FIRST


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = script_parser(__doc__)
    add = parser.add_argument
    text = 'work dirs, or folders of work dirs'
    add('work_dirs', nargs='+', type=Path, help=text)
    add('--out', type=Path, help='folder for the report (default: WORK_DIR/report)')
    return parser.parse_args(argv)


def show(report: Report, console: Console) -> None:
    """Print the table, then what was left out, then the files."""
    table = Table()
    for name in FIRST:  # the files have the rest
        table.add_column(name, overflow='fold')
    for run in report.runs:
        table.add_row(*map(escape, report.summary(run)[: len(FIRST)]))
    console.print(table)
    for problem in report.problems:
        console.print(f'[yellow]{escape(problem)}[/]', highlight=False)
    for path in (report.markdown, report.json, report.html):
        console.print(str(path), highlight=False, soft_wrap=True)


@script
def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    out = args.out or args.work_dirs[0] / 'report'
    show(build_report(args.work_dirs, out), Console())


if __name__ == '__main__':
    sys.exit(main())
