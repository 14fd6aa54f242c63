"""Files of a data set, found once for all."""

import os
from collections.abc import Callable
from pathlib import Path

from mmengine.logging import MMLogger

IMAGE_SUFFIXES = tuple('.jpg .jpeg .png .webp .bmp .tif .tiff .ppm .pgm'.split())


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


def list_images(folder: str | Path) -> list[str]:
    """Paths of all images in a tree, sorted.

    Raises:
        FileNotFoundError: If there is none.
    """
    found, problem = [], 'does not exist'
    if Path(folder).is_dir():
        found = regular_files(str(folder), lambda p: p.lower().endswith(IMAGE_SUFFIXES))
        problem = f'has no image ({", ".join(IMAGE_SUFFIXES)})'
    if not found:
        raise FileNotFoundError(
            f'{folder} {problem}. Name a folder of images; they may lie in folders '
            'below it.'
        )
    return found
