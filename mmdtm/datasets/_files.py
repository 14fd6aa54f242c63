"""What the data sets read from official files have in common."""

import os
from collections.abc import Callable
from pathlib import Path

from mmengine.logging import MMLogger


def require(path: str | Path, what: str, source: str) -> Path:
    """Return ``path`` if it is a file, else say where the data set's come from.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f'{what}: {path} is missing. Unpack the official files ({source}) so that '
            f'it is there, or set data_root in the config to where they are.'
        )
    return path


def read_pairs(path: Path) -> dict[str, str]:
    """Read lines of ``KEY VALUE``, the value keeping its inner spaces.

    Raises:
        ValueError: If a line has no value or a key comes twice.
    """
    pairs = {}
    for number, line in enumerate(path.read_text(encoding='utf-8').splitlines(), 1):
        if not line.strip():
            continue
        key, _, value = line.strip().partition(' ')
        if not value.strip() or key in pairs:
            reason = 'comes twice' if key in pairs else 'has no value'
            raise ValueError(
                f'{path}:{number}: {key!r} {reason}. Unpack the file again.'
            )
        pairs[key] = value.strip()
    return pairs


def regular_files(folder: str, wanted: Callable[[str], bool]) -> list[str]:
    """Paths of the regular files with a wanted name in a tree, sorted.

    Links are followed, hidden files ignored. What cannot be followed, a link to a
    folder that it lies in, and pipes and devices with a wanted name are left out,
    counted and named in the log.
    """
    found, left_out = [], []

    def scan(folder: str, above: frozenset) -> None:
        here = os.stat(folder)
        above |= {(here.st_dev, here.st_ino)}
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith('.'):
                    continue
                try:
                    if entry.is_dir():
                        target = entry.stat() if entry.is_symlink() else None
                        if target and (target.st_dev, target.st_ino) in above:
                            raise OSError('a link to a folder that it lies in')
                        scan(entry.path, above)
                    elif wanted(entry.path):
                        if not entry.is_file():
                            raise OSError('not a regular file')
                        found.append(entry.path)
                except OSError as error:
                    left_out.append(f'{entry.path} ({error.strerror or error})')

    scan(folder, frozenset())
    if left_out:
        MMLogger.get_current_instance().warning(
            f'{folder}: {len(left_out)} entries are left out: '
            + ', '.join(left_out[:5])
            + (', ...' if len(left_out) > 5 else '')
            + '. Remove them, or put files in their place.'
        )
    return sorted(found)
