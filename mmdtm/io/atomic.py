"""Atomic writes: a name is given once all of its content is on the disk."""

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: str | Path, exist_ok: bool = True) -> Iterator[Path]:
    """Write a file or a folder so that a reader sees the old or the new, whole.

    Gives a free path in the same folder, to write a file or make a folder at.
    When the block ends, that takes the name; when it raises, it is removed and
    what was there stays. A process that is killed leaves a file behind that ends
    in '.tmp', see :func:`remove_leftovers`.

    Args:
        path: The name. A folder of that name that is not empty cannot be replaced:
            remove it at the end of the block.
        exist_ok: Replace a file of that name.

    Yields:
        Where to write.

    Raises:
        FileExistsError: If there is such a file and ``exist_ok`` is False.
    """
    path = Path(path)
    if not exist_ok and path.exists():
        raise FileExistsError(f'{path} exists. Remove it, or name another.')
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'{path.name}.{secrets.token_hex(4)}.tmp')
    try:
        yield part
        if part.is_file():
            with part.open('rb') as file:
                os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        _remove(part)
        raise


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8, atomically."""
    with atomic_write(path) as part:
        part.write_text(text, encoding='utf-8')


def remove_leftovers(folder: str | Path) -> list[Path]:
    """Remove what atomic writes of killed processes left directly in a folder.

    Call it only while no other process writes there.

    Returns:
        What was removed.
    """
    left = [
        path
        for path in Path(folder).glob('*.tmp')
        if re.fullmatch(r'.+\.[0-9a-f]{8}\.tmp', path.name)
    ]
    for path in left:
        _remove(path)
    return left


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
