"""What the data sets read from official files have in common."""

from pathlib import Path


def require(path: str | Path, what: str, source: str) -> Path:
    """Return ``path`` if it is a file, else say what to put there.

    Args:
        path: The file a data set is about to read.
        what: The data set's name, for the message.
        source: Where the official files come from.

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
            raise ValueError(f'{path}:{number}: {key!r} {reason}.')
        pairs[key] = value.strip()
    return pairs
