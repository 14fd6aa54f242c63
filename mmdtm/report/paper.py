"""The values that the paper prints, and the runs that they belong to.

``paper.json`` holds tables 1 to 11 of arXiv 2401.00254v1: every row and column,
gains, means and standard deviations as printed. A value belongs to a *chain*
of configs, the pre-training's and then that of what followed, so that a
fine-tuning is credited by the pre-training that its weights came from.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

# What a grid search may vary: tables 6 and 7 report the best of a grid.
SEARCHED = {'optim_wrapper.optimizer.lr', 'optim_wrapper.optimizer.weight_decay'}
Chain = tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """One printed cell of a table.

    Attributes:
        table: Its number.
        row, column: As the table names them.
        value: Number or word; None for a dash.
        gain: Over the baseline, as printed in brackets.
        mean, std: Of the grid whose best is ``value``.
        metric: What a run calls it; None where runs have no such value.
        chain: Names of the configs behind it, the pre-training's first; empty
            for other methods.
        grid: Whether ``value`` is the best of a grid of runs.
    """

    table: str
    row: str
    column: str
    value: float | str | None
    gain: float | None = None
    mean: float | None = None
    std: float | None = None
    metric: str | None = None
    chain: Chain = ()
    grid: bool = False

    @property
    def printed(self) -> str:
        """The value as the paper prints it."""
        if not isinstance(self.value, (int, float)):
            return str(self.value or '—')
        if self.metric == 'relative_throughput':
            return f'{self.value:.3f}'
        return f'{self.value:g}' if self.value >= 200 else f'{self.value:.1f}'

    def __str__(self) -> str:
        """The whole cell as the paper prints it."""
        text = self.printed
        if self.mean is not None:
            text += f' ({self.mean:.1f} ± {self.std:.1f})'
        return text if self.gain is None else f'{text} ({self.gain:+.1f})'


@dataclass(frozen=True)
class Table:
    """One table: a row of cells for each of its rows."""

    number: str
    title: str
    where: str
    columns: tuple[str, ...]
    rows: dict[str, list[Cell]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def cells(self) -> Iterator[Cell]:
        """All cells, row by row."""
        for row in self.rows.values():
            yield from row


@cache
def paper_tables() -> dict[str, Table]:
    """Tables 1 to 11 by number."""
    text = (files(__package__) / 'paper.json').read_text(encoding='utf-8')
    return {
        number: _table(number, content)
        for number, content in json.loads(text)['tables'].items()
    }


def find_cells(chain: Chain, metrics, changes: dict | None = None) -> list[Cell]:
    """Cells that a run of a chain of configs with these metrics is compared with.

    One that differs from its config (``changes``) is not a row of the paper, but for
    what a grid search varies.
    """
    changed = set(changes or {})
    return [
        cell
        for table in paper_tables().values()
        for cell in table.cells
        if cell.chain and cell.chain == chain
        if cell.metric in metrics
        if not changed or (cell.grid and changed <= SEARCHED)
    ]


def _table(number: str, content: dict) -> Table:
    columns = content['columns']
    table = Table(
        number,
        content['title'],
        content['where'],
        tuple(column['name'] for column in columns),
        notes=tuple(content.get('notes', ())),
    )
    for row in content['rows']:
        chains = row.get('runs') or [None] * len(columns)
        table.rows[row['name']] = [
            Cell(
                number,
                row['name'],
                column['name'],
                **(value if isinstance(value, dict) else dict(value=value)),
                metric=column['metric'],
                chain=tuple(chain or ()),
                grid=content.get('grid', False),
            )
            for column, value, chain in zip(columns, row['values'], chains, strict=True)
        ]
    return table
