"""What made a run: ``run.json`` in its work folder, and a word in its checkpoints.

A checkpoint carries its run's *lineage*, a plain dict under ``meta['run']``:

- ``id``: of the run, drawn at its start;
- ``config``: as :func:`config_name` gives it; ``title``: the config's first line;
- ``work_dir``; ``smoke``: whether ``--smoke`` made it small;
- ``changes``: settings of the recipe in which it differs from that config;
- ``parent``: the lineage of the run whose weights it started from, or None;
- ``epoch`` or ``iter``: how far it had come.

So a fine-tuning knows its pre-training by the checkpoint that it loaded,
wherever the files were moved and whatever they are called.
"""

import ast
import hashlib
from pathlib import Path

from mmdtm.io import read_json

FILE = 'run.json'
KEY = 'run'  # of a checkpoint's meta
LINEAGE = ('id', 'config', 'title', 'smoke', 'changes', 'parent')
# Of a record; what ends in '?' may be missing.
SHAPE = {
    'id': str,
    'config': str,
    'kind': str,
    'changes': dict,
    'parent?': dict,
    'full_config': {
        'optim_wrapper?': {'optimizer?': dict},
        'randomness?': dict,
        'train_cfg?': dict,
    },
    'teachers?': [{'weights_sha256': str}],
    'files?': dict,
    'starts': [
        {
            'code?': {'commit?': str},
            'versions?': dict,
            'hardware?': {'gpus?': [str]},
        }
    ],
}
PACKAGE = Path(__file__).resolve().parent


def config_name(file: str | Path | None) -> str:
    """What a config is called in records, reports and tables.

    One of mmdtm's own by its path below ``configs/`` without ``.py``, such as
    ``'finetune/dtm_vit-b_100e_in1k'``; any other, which may differ from ours whatever
    its name, by its absolute path without ``.py``.
    """
    if not file:
        return ''
    path = Path(file).resolve().with_suffix('')
    for configs in (PACKAGE.parent / 'configs', PACKAGE / '.mim/configs'):
        if path.is_relative_to(configs):
            return path.relative_to(configs).as_posix()
    return path.as_posix()


def config_docstring(file: str | Path) -> tuple[str, str]:
    """First line and rest of a config's docstring, without executing it.

    Both are empty if it has none, or is not a Python file.
    """
    if Path(file).suffix != '.py':
        return '', ''
    tree = ast.parse(Path(file).read_text(encoding='utf-8'))
    title, _, rest = (ast.get_docstring(tree) or '').partition('\n')
    return title, rest


def read_record(folder: str | Path) -> dict | None:
    """The record of a work folder; None if it has none.

    Raises:
        ValueError: If the file is not a record.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        return None
    try:
        record = read_json(path)
        if not _fits(record, SHAPE):
            raise ValueError('its parts are of other kinds')
        record['starts'][-1]['code'], chain(record), changes(record)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(
            f'{path} is not a record of a run ({error!r}). Remove it: the run is '
            'then shown without what made it.'
        ) from error
    return record


def _fits(node: object, shape: object) -> bool:
    """Whether the parts of a record that others read are of the right kinds."""
    if isinstance(shape, dict):
        return isinstance(node, dict) and all(
            key.endswith('?')
            and node.get(key[:-1]) is None
            or _fits(node.get(key.removesuffix('?')), value)
            for key, value in shape.items()
        )
    if isinstance(shape, list):
        return isinstance(node, list) and all(_fits(child, shape[0]) for child in node)
    return isinstance(node, shape)  # type: ignore[arg-type]


def lineages(lineage: dict | None) -> list[dict]:
    """A run and the runs it comes from, the first ancestor first.

    A test is not a run of its own, it stands for the tested one.
    """
    found: list[dict] = []
    while lineage:
        if not lineage.get('test'):
            found.insert(0, lineage)
        lineage = lineage.get('parent')
    return found


def chain(lineage: dict | None) -> tuple[str, ...]:
    """Names of the configs from the first ancestor to the run itself."""
    return tuple(str(run['config']) for run in lineages(lineage))


def changes(lineage: dict | None) -> dict:
    """In what the run, or an ancestor, differs from its config."""
    return {k: v for run in lineages(lineage) for k, v in run['changes'].items()}


def lineage_of(checkpoint: str | Path) -> dict | None:
    """The lineage that a checkpoint file carries; its tensors are not read.

    None for files without one: of other programs, converted, or not there.
    """
    from mmdtm.io.checkpoints import read_checkpoint

    try:
        content = read_checkpoint(checkpoint, mmap=True)
    except (OSError, ValueError):
        return None
    return lineage_in(content)


def lineage_in(checkpoint) -> dict | None:
    """The lineage in a checkpoint that is loaded already, with its epoch."""
    meta = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
    if not isinstance(meta, dict):
        return None
    found = meta.get(KEY)
    if not isinstance(found, dict) or 'id' not in found:
        return None
    reached = {name: meta[name] for name in ('epoch', 'iter') if name in meta}
    return {**found, **reached}


def hash_file(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
