"""docs/tables.md lists every config, with its command and the paper's figure."""

from pathlib import Path

import pytest
from test_all import ALL

ROOT = Path(__file__).resolve().parents[2]
LINES = (ROOT / 'docs/tables.md').read_text().splitlines()


def rows() -> list[tuple[str, str, str, str]]:
    """(table, config, figure, command) of every row with a config."""
    found, table = [], None
    for line in LINES:
        if line.startswith('## Table '):
            table = line.removeprefix('## Table ').split(':')[0]
        cells = [cell.strip() for cell in line.strip('|').split('|')]
        if line.startswith('|') and cells[1].startswith('`configs/'):
            config = cells[1].strip('`').removeprefix('configs/')
            found.append((table, config, cells[2], cells[3].strip('`')))
    return found


def test_every_config_is_listed_and_built():
    """Those that `test_all` builds and trains, and no others."""
    listed = {config for _, config, _, _ in rows()}
    ours = {
        name.removeprefix('configs/') for name in ALL if name.startswith('configs/')
    }
    assert listed - ours == set(), 'no such config, or one that no test builds'
    assert ours - listed == set(), 'docs/tables.md lacks it'


def test_every_table_has_rows():
    tables = {table for table, _, _, _ in rows()}
    assert tables == {*map(str, (2, 3, 4, 5, *range(8, 15))), '6, 7'}


@pytest.mark.parametrize(('table', 'config', 'figure', 'command'), rows())
def test_row(table, config, figure, command):
    """The command is that of the config's own card."""
    assert f'configs/{config}' in command.split()
    card = (ROOT / 'configs' / config).read_text().split('"""')[1]
    assert command in ' '.join(card.replace('\\\n', ' ').split())
    assert (figure == 'recipe') == (table in ('12', '13', '14'))
