"""Bring what is made of the configs' cards up to date (make docs-tables).

In docs/tables.md, between ``<!-- table N -->`` and ``<!-- end -->``: table N's values,
from mmdtm/report/paper.json, with the configs behind each, and what the configs'
cards say. The text around it is written by hand. In configs/, the metafiles that
model-index.yml imports, which mim and ``mmpretrain.list_models`` read. ``--check``
changes nothing and exits with 1 if a file is not up to date.
"""

import re
import sys
from pathlib import Path

import yaml

from mmdtm.cli.scripts import script_parser
from mmdtm.io import write_text
from mmdtm.report.cards import Card, read_card
from mmdtm.report.paper import paper_tables
from mmdtm.report.text import markdown_table
from mmdtm.run_record import config_name

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / 'docs/tables.md'
CONFIGS = METAFILES = ROOT / 'configs'
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
    cells = [cell for cell in paper_tables()[number].cells if cell.chain]
    chains = [' → '.join(f'`{name}`' for name in cell.chain) for cell in cells]
    return [
        [cell.row, cell.column, str(cell), chain]
        for cell, chain in zip(cells, chains, strict=True)
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


def generate_page(cards: dict[str, Card]) -> str:
    """The page with its tables as they should be."""
    page = PAGE.read_text(encoding='utf-8')
    return REGION.sub(lambda m: m[1] + '\n' + region(cards, m[2]) + '\n' + m[3], page)


def model_entry(name: str, card: Card) -> dict:
    """A config as OpenMMLab's model index has it.

    There are neither weights nor results: none of these runs has been made at
    full scale, and the paper's values are not those of a checkpoint here.
    """
    data = {
        'segmentation': 'ADE20K',
        'transfer': name.split('_')[-1],
    }.get(card.stage, 'ImageNet-1k')
    if name.startswith('tiny-imagenet/'):
        data = 'Tiny ImageNet'
    length, unit = re.search(r'_(\d+)(e|k)(_|$)', name).group(1, 2)
    entry = dict(
        Name=name,
        Metadata={
            'Title': card.title.rstrip('.'),
            'Training Data': data,
            **({'Epochs': int(length)} if unit == 'e' else {}),
            **({'Iterations': int(length) * 1000} if unit == 'k' else {}),
        },
    )
    entry |= {'In Collection': 'DTM', 'Config': f'configs/{name}.py'}
    task = {
        'pre-training': None,
        'segmentation': 'Semantic Segmentation',
    }.get(card.stage, 'Image Classification')
    if task:
        entry['Results'] = [dict(Task=task, Dataset=data, Metrics={})]
    return entry


def generate_metafiles(cards: dict[str, Card]) -> dict[Path, str]:
    """Index mmpretrain's configs and mmsegmentation's apart: neither builds both."""
    collection = dict(
        Name='DTM',
        Metadata=dict(Architecture=['Vision Transformer']),
        Paper=dict(
            Title='Morphing Tokens Draw Strong Masked Image Models',
            URL='https://arxiv.org/abs/2401.00254',
        ),
    )
    head = '# Written by make docs-tables from the cards of the configs.\n'
    segmentation = {n: c for n, c in cards.items() if c.stage == 'segmentation'}
    others = {n: c for n, c in cards.items() if n not in segmentation}
    contents = {
        METAFILES / 'metafile.yml': dict(
            Collections=[collection],
            Models=[model_entry(*item) for item in others.items()],
        ),
        METAFILES / 'segmentation/metafile.yml': dict(
            Models=[model_entry(*item) for item in segmentation.items()],
        ),
    }
    return {
        path: head + yaml.safe_dump(content, sort_keys=False, width=88)
        for path, content in contents.items()
    }


def main(argv: list[str] | None = None) -> int:
    parser = script_parser(__doc__)
    parser.add_argument('--check', action='store_true', help='only compare')
    args = parser.parse_args(argv)
    cards = read_cards()
    stale = 0
    for path, text in {PAGE: generate_page(cards), **generate_metafiles(cards)}.items():
        if path.is_file() and path.read_text(encoding='utf-8') == text:
            continue
        if args.check:
            print(f'{path} is not up to date. Run make docs-tables.', file=sys.stderr)
            stale = 1
        else:
            path.parent.mkdir(exist_ok=True)
            write_text(path, text)
    return stale


if __name__ == '__main__':
    sys.exit(main())
