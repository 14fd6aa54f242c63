"""JSON that somebody else has written."""

import json
from pathlib import Path
from typing import Any


def parse_json(text: str) -> Any:
    """Parse a text, whatever it is.

    Whole numbers that no float can hold become infinite ones.

    Raises:
        ValueError: It is not JSON, or nested too deeply.
    """
    try:
        return json.loads(text, parse_int=_parse_int)
    except RecursionError as error:
        raise ValueError('nested too deeply') from error


def read_json(path: str | Path) -> Any:
    """Parse a file, unless its end may never come.

    Raises:
        OSError: It cannot be read, or is a pipe or a device.
        ValueError: See :func:`parse_json`.
    """
    if not Path(path).is_file():
        raise OSError(f'{path} is not a file. Name one that is there.')
    return parse_json(Path(path).read_text(encoding='utf-8'))


def _parse_int(text: str) -> int | float:
    return int(text) if len(text) < 300 else float(text)
