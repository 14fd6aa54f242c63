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

import hashlib
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import uuid
import warnings
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

FILE = 'run.json'
KEY = 'run'  # of a checkpoint's meta
LINEAGE = ('id', 'config', 'title', 'smoke', 'changes', 'parent')
# What makes a run another than its config says; where its data lie, what it starts
# from and how its GPUs compute does not.
RECIPE = re.compile(r'model\.|train_cfg\.|optim_wrapper\.|param_scheduler|train_data')
NOT_RECIPE = re.compile(
    r'\.init_cfg|\.data_root$|^optim_wrapper\.(type|dtype|loss_scale|use_fsdp|accum)'
    r'|^train_dataloader\.(?!dataset)'
)
PACKAGE = Path(__file__).resolve().parent
LIBRARIES = (
    'torch',
    'torchvision',
    'numpy',
    'mmengine',
    'mmcv',
    'mmpretrain',
    'mmseg',
    'open_clip',
    'timm',
)


def config_name(file: str | Path | None) -> str:
    """What a config is called in records, reports and tables.

    Args:
        file: The config file.

    Returns:
        For one of mmdtm's own the path below ``configs/`` without ``.py``, such
        as ``'finetune/dtm_vit-b_100e_in1k'``; for any other, which may differ
        from ours whatever its name, the absolute path without ``.py``.
    """
    if not file:
        return ''
    path = Path(file).resolve().with_suffix('')
    for configs in (PACKAGE.parent / 'configs', PACKAGE / '.mim/configs'):
        if path.is_relative_to(configs):
            return path.relative_to(configs).as_posix()
    return path.as_posix()


def read_record(folder: str | Path) -> dict | None:
    """The record of a work folder; None if it has none.

    Raises:
        ValueError: If the file is not a record.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding='utf-8'))
        record['id'], record['config'], record['kind'], record['starts'][-1]['code']
        record['full_config'].keys(), chain(record), changes(record)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(
            f'{path} is not a record of a run ({error!r}). Remove it: the run is '
            'then shown without what made it.'
        ) from error
    return record


def lineages(lineage: dict | None) -> list[dict]:
    """A run and the runs it comes from, the first ancestor first.

    Args:
        lineage: A record or a lineage. A test is not a run of its own, it stands
            for the tested one.
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
    """The lineage that a checkpoint file carries.

    The tensors are not read.

    Args:
        checkpoint: Any file.

    Returns:
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


def new_record(cfg, model, seed: int | None, processes: int, device: str) -> dict:
    """Describe a run that begins.

    Args:
        cfg: The whole ``mmengine.Config``.
        model: What is trained or tested.
        seed: Of all random numbers.
        processes: That work together.
        device: Type of device, ``'cuda'`` or ``'cpu'``.
    """
    start = dict(
        time=datetime.now(timezone.utc).isoformat(timespec='seconds'),
        command=shlex.join(sys.argv),
        seed=seed,
        code=describe_code(),
        versions=describe_versions(),
        hardware=describe_hardware(processes, device),
    )
    return dict(
        id=uuid.uuid4().hex[:16],  # from the system, not from a seeded generator
        config=config_name(cfg.filename),
        title=_title(cfg.filename),
        kind=describe_kind(model),
        smoke=bool(cfg.get('smoke')),
        changes={} if cfg.get('smoke') else _changes(cfg),
        parent=None,
        teachers=describe_teachers(model),
        files=_hash_files(cfg),
        full_config=cfg.to_dict(),
        starts=[start],
    )


def describe_kind(model) -> str:
    """What training this model is, by its class: the name that reports filter by."""
    from mmpretrain.models import BaseClassifier, BaseSelfSupervisor

    if isinstance(model, BaseSelfSupervisor):
        return 'pre-training'
    if isinstance(model, BaseClassifier):
        learns = any(p.requires_grad for p in model.backbone.parameters())
        return 'fine-tuning' if learns else 'linear probe'
    segmentors = sys.modules.get('mmseg.models.segmentors')
    if segmentors and isinstance(model, segmentors.BaseSegmentor):
        return 'segmentation'
    return 'other'


def describe_code() -> dict:
    """Version of mmdtm and, in a clone of its repository, the commit."""
    from mmdtm import __version__

    found: dict[str, str | bool] = dict(version=__version__)
    if (PACKAGE.parent / '.git').exists():
        try:
            found['commit'] = _git('rev-parse', 'HEAD')
            found['changed'] = bool(
                _git('status', '--porcelain', '--untracked-files=no')
            )
        except (OSError, subprocess.SubprocessError):
            pass  # no git, or a repository of somebody else
    return found


def describe_versions() -> dict[str, str]:
    """Of Python and of the libraries that this process has loaded."""
    loaded = {name: sys.modules.get(name) for name in LIBRARIES}
    versions = {
        name: str(getattr(module, '__version__', 'unknown'))
        for name, module in loaded.items()
        if module
    }
    return dict(python=platform.python_version(), **versions)


def describe_hardware(processes: int, device: str) -> dict:
    """The machine of the first process, and how many work together."""
    import torch

    gpus = []
    if device == 'cuda':
        count = torch.cuda.device_count()
        gpus = [torch.cuda.get_device_name(i) for i in range(count)]
    return dict(
        host=platform.node(),
        system=platform.platform(),
        cores=os.cpu_count(),
        device=device,
        gpus=gpus,
        processes=processes,
    )


def describe_teachers(model) -> list[dict]:
    """Class and SHA-256 of the weights of each frozen teacher in a model.

    The hash is of what is computed with, so it is known for a tag that
    open_clip downloads as well as for a file.
    """
    from mmdtm.models.target_generators.base import TargetGenerator

    return [
        dict(type=type(part).__name__, weights_sha256=_hash_weights(part.teacher))
        for part in model.modules()
        if isinstance(part, TargetGenerator)
    ]


def _hash_weights(network) -> str:
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f'{name} {tensor.dtype} {tuple(tensor.shape)}'.encode())
        numbers = tensor.detach().cpu().contiguous().flatten()
        digest.update(numbers.view(torch.uint8).numpy())
    return digest.hexdigest()


def _hash_files(cfg) -> dict[str, str]:
    """SHA-256 of each file that the config's model, or ``load_from``, names."""
    values = [cfg.get('load_from'), *_strings(cfg.get('model'))]
    paths = [value for value in values if value and os.path.isfile(value)]
    return {path: hash_file(path) for path in dict.fromkeys(paths)}


def hash_file(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def initial_checkpoints(model_cfg) -> list[str]:
    """Files of all ``init_cfg`` of type Pretrained below a model's config."""
    if isinstance(model_cfg, (list, tuple)):
        return [path for part in model_cfg for path in initial_checkpoints(part)]
    if not isinstance(model_cfg, dict):
        return []
    own = [model_cfg['checkpoint']] if _is_pretrained(model_cfg) else []
    return own + [p for part in model_cfg.values() for p in initial_checkpoints(part)]


def _is_pretrained(node: dict) -> bool:
    return node.get('type') == 'Pretrained' and isinstance(node.get('checkpoint'), str)


def _strings(node) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, (dict, list, tuple)):
        for child in node.values() if isinstance(node, dict) else node:
            yield from _strings(child)


def _changes(cfg) -> dict:
    """Settings of the recipe that are others than in the config's file."""
    from mmengine.config import Config

    from mmdtm.engine.launch import fit_to_device

    if not cfg.filename or not Path(cfg.filename).is_file():
        return {}
    file = Config.fromfile(cfg.filename, import_custom_modules=False)
    file.launcher = cfg.get('launcher', 'none')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # said once, when the run's own was fitted
        fit_to_device(file)
    old, new = _flat(file.to_dict()), _flat(cfg.to_dict())
    return {
        name: new.get(name)
        for name in sorted(old.keys() | new.keys())
        if RECIPE.match(name) and not NOT_RECIPE.search(name)
        if old.get(name) != new.get(name)
    }


def _flat(node: dict, prefix: str = '') -> dict:
    """Values by dotted name, as JSON has them; lists are values."""
    found: dict = {}
    for key, value in node.items():
        if isinstance(value, dict):
            found |= _flat(value, f'{prefix}{key}.')
        else:
            found[f'{prefix}{key}'] = json.loads(json.dumps(value, default=str))
    return found


def _title(file: str | None) -> str:
    """First line of a config's docstring."""
    try:
        text = Path(file or '').read_text(encoding='utf-8')
    except OSError:
        return ''
    return text[3:].split('\n')[0].strip() if text.startswith('"""') else ''


def _git(*args: str) -> str:
    done = subprocess.run(
        ['git', '-C', str(PACKAGE.parent), *args],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    return done.stdout.strip()
