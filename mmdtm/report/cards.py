"""Run cards: what each config says of itself, in its module's docstring.

A docstring is not inherited through ``_base_``, so that a config that changes
another one does not claim its place in the paper's tables.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from mmdtm.run_record import config_docstring

STAGES = ('pre-training', 'fine-tuning', 'linear probe', 'segmentation', 'transfer')
BEYOND = 'beyond the paper'


@dataclass(frozen=True)
class Card:
    """One config's card.

    Attributes:
        title: What the config is, in a line.
        rows: (table, row) of arXiv 2401.00254v1 that the config belongs to; the
            table is a number or a figure's name, as a string.
        fields: All fields by their names, each on one line. Among them are ``Stage``,
            one of ``STAGES``, and ``Command``; ``Then`` names the configs that start
            from its checkpoint, as paths below the repository with wildcards.
    """

    title: str
    rows: tuple[tuple[str, str], ...]
    fields: dict[str, str]

    @property
    def stage(self) -> str:
        """What training it is."""
        return self.fields['Stage']

    @property
    def command(self) -> str:
        """What runs it."""
        return self.fields['Command']

    @property
    def beyond(self) -> bool:
        """Whether the paper has no such row."""
        return not self.rows


def read_card(path: str | Path) -> Card:
    """Read the card of a config's file, without executing it.

    Raises:
        ValueError: If the card lacks a field, or a field is not as it should be.
    """
    title, rest = config_docstring(path)
    _, *parts = re.split(r'^([A-Z][\w ]*):[ ]+', rest, flags=re.MULTILINE)
    fields = {
        name: ' '.join(value.replace('\\\n', ' ').split())
        for name, value in zip(parts[::2], parts[1::2], strict=True)
    }
    missing = [n for n in ('Rows', 'Stage', 'Hardware', 'Command') if n not in fields]
    if missing or fields['Stage'] not in STAGES:
        raise ValueError(
            f'{path}: the card (the docstring at the top) lacks {", ".join(missing)}.'
            if missing
            else f'{path}: the card says Stage: {fields["Stage"]}.'
            f' Write {", ".join(missing) or " or ".join(STAGES)} there; '
            'configs/dtm_vit-b_300e.py shows a card.'
        )
    rows = []
    if not fields['Rows'].startswith(BEYOND):
        for item in fields['Rows'].split('; '):
            table, colon, row = item.partition(': ')
            if not (colon and re.fullmatch(r'\d+|figure \d+', table) and row):
                raise ValueError(
                    f'{path}: Rows of the card has {item!r}. Write TABLE: ROW, several '
                    f"joined by '; ', or '{BEYOND}'."
                )
            rows.append((table, row))
    return Card(title, tuple(rows), fields)
