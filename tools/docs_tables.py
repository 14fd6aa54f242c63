"""Bring the tables of docs/tables.md up to date (make docs-tables).

Between ``<!-- table N -->`` and ``<!-- end -->`` the page has table N's values, from
mmdtm/report/paper.json, with the configs behind each, and what the configs' cards
say. The text around it is written by hand. ``--check`` changes nothing and exits
with 1 if the page is not up to date.
"""

import argparse
import re
import sys
from pathlib import Path

from mmdtm.io import write_text
from mmdtm.report.cards import Card, read_card
from mmdtm.report.paper import paper_tables
from mmdtm.report.text import markdown_table
from mmdtm.run_record import config_name

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / 'docs/tables.md'
CONFIGS = ROOT / 'configs'
REGION = re.compile(r'(<!-- table (.+?) -->\n).*?(<!-- end -->)', re.DOTALL)


def read_cards() -> dict[str, Card]:
    """Cards of all configs by name, pre-trainings first."""
    paths = [path for path in CONFIGS.rglob('*.py') if '_base_' not in path.parts]
    cards = {config_name(path): read_card(path) for path in paths}
    return dict(
        sorted(cards.items(), key=lambda i: (i[1].stage != 'pre-training', i[0]))
    )


def value_rows(number: str) -> list[list[str]]:
    """Row, column, printed value, configs of each cell that is computed here."""
    return [
        [
            cell.row,
            cell.column,
            str(cell),
            ' → '.join(f'`{name}`' for name in cell.chain),
        ]
        for cell in paper_tables()[number].cells
        if cell.chain
    ]


def command_rows(cards: dict[str, Card], target: str) -> list[list[str]]:
    """Config, what it is, and command of all configs that belong to a table.

    Args:
        cards: All cards.
        target: ``'1'`` to ``'14'``, ``'figure 5'``, or ``'beyond the paper'``.
    """
    cells = paper_tables()[target].cells if target in paper_tables() else ()
    behind = {name for cell in cells for name in cell.chain}
    rows = []
    for name, card in cards.items():
        belongs = name in behind or any(target == table for table, _ in card.rows)
        if belongs or (card.beyond and target == 'beyond the paper'):
            commands = [card.command, card.fields.get('Grid', '')]
            shown = '<br>'.join(f'`{command}`' for command in commands if command)
            rows.append([f'`{name}`', card.title.rstrip('.'), shown])
    return rows


def region(cards: dict[str, Card], target: str) -> str:
    """What stands between a table's markers."""
    lines = []
    if target in paper_tables():
        table = paper_tables()[target]
        header = ('row', 'column', 'printed', 'configs')
        lines += [*markdown_table(header, value_rows(target), escape=False), '']
        lines += [*(f'{note}\n' for note in table.notes)]
    rows = command_rows(cards, target)
    if rows:
        header = ('config', 'what it is', 'command')
        lines += [*markdown_table(header, rows, escape=False), '']
    return '\n'.join(lines)


def generate(page: str) -> str:
    """The page with its tables as they should be."""
    cards = read_cards()
    return REGION.sub(lambda m: m[1] + '\n' + region(cards, m[2]) + '\n' + m[3], page)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--check', action='store_true', help='only compare')
    args = parser.parse_args(argv)
    old = PAGE.read_text(encoding='utf-8')
    new = generate(old)
    if args.check and new != old:
        print(f'{PAGE} is not up to date. Run make docs-tables.', file=sys.stderr)
        return 1
    if new != old:
        write_text(PAGE, new)
    return 0


if __name__ == '__main__':
    sys.exit(main())
