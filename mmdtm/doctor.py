"""What is wrong with a run, found within seconds and before a GPU is taken.

:func:`check_inputs` is what training asks first: data, teacher, checkpoints, images
against the batch. :func:`diagnose` says more, for ``mmdtm doctor CONFIG``.
"""

from __future__ import annotations

import difflib
import inspect
import itertools
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine import registry
from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain.registry import BATCH_AUGMENTS
from torch.utils.data import DataLoader

import mmdtm.plugin  # noqa: F401
from mmdtm.datasets import ImageFolder, UnlabeledImages
from mmdtm.engine.run_description import initial_checkpoints
from mmdtm.hub import for_inference

# Read by what builds a part, not by the part.
BUILDERS_KEYS = {
    *('type', '_scope_', '_delete_', 'priority', 'requires_grad'),
    *('constructor', 'paramwise_cfg', 'convert_to_iter_based', 'by_epoch'),
}
REGISTRIES = (
    *(r for r in vars(registry).values() if isinstance(r, registry.Registry)),
    BATCH_AUGMENTS,
)


class Finding(NamedTuple):
    """One line of a diagnosis: whether it stops the run, and what it is."""

    stops: bool
    text: str


def check_inputs(cfg: Config) -> None:
    """Raise if the run cannot start: data first, then checkpoints and the teacher.

    Args:
        cfg: The config as it will run.

    Raises:
        FileNotFoundError: If images or weights are missing; says which and where.
        ValueError: If there are fewer images than a step takes, or the data are not in
            their layout.
    """
    _enter_scope(cfg)
    if cfg.get('train_dataloader'):
        check_loader(cfg.train_dataloader, 'train_dataloader')
    if cfg.get('val_dataloader'):
        check_loader(cfg.val_dataloader, 'val_dataloader')
    check_checkpoints(cfg)
    check_towers(cfg.model)


def _enter_scope(cfg: Config) -> None:
    registry.init_default_scope(cfg.get('default_scope') or 'mmpretrain')


def check_loader(loader: dict, name: str, count_all: bool = False) -> int:
    """Count the images of a split, as far as it matters.

    Args:
        loader: Its config.
        name: What it is called there.
        count_all: Count them all.

    Returns:
        Their number; unless ``count_all``, a lower one that is enough for a step will
        do.
    """
    options = loader['dataset']
    if not isinstance(options, dict):
        return len(options)
    dataset = registry.DATASETS.build({**options, 'lazy_init': True})
    processes = _processes()
    wanted = loader.get('batch_size', 1) * processes
    number = _count(dataset, math.inf if count_all else wanted)
    if number < wanted and loader.get('drop_last'):
        place = getattr(dataset, 'img_prefix', None) or options.get('data_root')
        shares = f' of {processes} processes' if processes > 1 else ''
        smaller = max(1, number // (4 * processes))
        raise ValueError(
            f'{place} has {number} images, fewer than one step takes: '
            f'{loader["batch_size"]} in each{shares or " process"}. Set a smaller '
            f'batch, --cfg-options {name}.batch_size={smaller}, or let `mmdtm pretrain '
            '--data DIR` size the recipe to the data.'
        )
    return number


def _count(dataset: Any, enough: float) -> int:
    """Images of a data set; of a tree of images no more than ``enough`` are listed."""
    tree = isinstance(dataset, (ImageFolder, UnlabeledImages)) and not dataset.ann_file
    if tree and enough < math.inf and os.path.isdir(dataset.img_prefix):
        walk = os.walk(dataset.img_prefix, followlinks=True)
        images = filter(dataset.is_valid_file, (name for _, _, n in walk for name in n))
        found = sum(1 for _ in itertools.islice(images, int(enough)))
        if found == enough:
            return found
    # Small, or missing: its own words say what is wrong.
    return len(dataset.load_data_list())


def _processes() -> int:
    return int(os.environ.get('WORLD_SIZE', os.environ.get('SLURM_NTASKS', 1)))


def check_checkpoints(cfg: Config) -> None:
    """Raise if a checkpoint to start from is not there.

    Raises:
        FileNotFoundError: Names it.
    """
    whole = cfg.get('load_from')
    for path in [whole] if whole else initial_checkpoints(cfg.model):
        if not path:
            raise FileNotFoundError(
                'The config leaves open which pre-trained checkpoint it starts from. '
                'Name it: --cfg-options model.backbone.init_cfg.checkpoint=PATH; or '
                'start at random: model.backbone.init_cfg=None.'
            )
        if '://' not in path and not Path(path).exists():
            raise FileNotFoundError(
                f'There is no checkpoint {path} to start from. Name one that exists: '
                '--cfg-options model.backbone.init_cfg.checkpoint=PATH, or load_from.'
            )


def check_towers(model: Any) -> None:
    """Ask every network of a model's config that loads weights whether they are there.

    Raises:
        FileNotFoundError: If it is missing, or cannot be downloaded.
        ValueError: If the network is unknown.
    """
    for node in _nodes(model):
        if _is_tower(node):
            _find_class(node['type']).require_weights(node)


def _is_tower(node: dict) -> bool:
    return hasattr(_find_class(node['type']), 'require_weights')


def _nodes(node: Any) -> Iterator[dict]:
    """All dicts with a type, outer ones first."""
    if isinstance(node, (list, tuple)):
        for child in node:
            yield from _nodes(child)
    elif isinstance(node, dict):
        if isinstance(node.get('type'), str):
            yield node
        for child in node.values():
            yield from _nodes(child)


def diagnose(cfg: Config) -> list[Finding]:
    """All that is wrong with a config here, and what its run will take.

    Args:
        cfg: The config as it will run, with its work folder.
    """
    found = [Finding(True, text) for text in unknown_names(cfg)]
    if found:
        return found  # nothing can be built
    for name in ('train_dataloader', 'val_dataloader'):
        if cfg.get(name):
            found += _ask(lambda name=name: _say_data(cfg[name], name))
    found += _ask(lambda: _say_checkpoints(cfg))
    found += _ask(lambda: _say_towers(cfg.model))
    try:
        student = _student(cfg)
    except Exception as error:  # whatever a class says of its arguments
        why = f'{type(error).__name__}: {error}'
        return [*found, Finding(True, f'The model cannot be built. Mend it: {why}')]
    found += _ask(lambda: _say_disk(cfg, student))
    found += _ask(lambda: _say_memory(cfg, student))
    return found


def _ask(question) -> list[Finding]:
    try:
        return [Finding(False, question())]
    except (OSError, ValueError) as error:
        return [Finding(True, str(error))]


def _say_data(loader: dict, name: str) -> str:
    number = check_loader(loader, name, count_all=True)
    batch = loader.get('batch_size', 1)
    return f'{name}: {number} images, {batch} in a batch of each process'


def _say_checkpoints(cfg: Config) -> str:
    check_checkpoints(cfg)
    named = [cfg.get('load_from') or '', *initial_checkpoints(cfg.model)]
    return f'checkpoint to start from: {next(filter(None, named), "none")}'


def _say_towers(model: Any) -> str:
    check_towers(model)
    towers = [node['type'] for node in _nodes(model) if _is_tower(node)]
    found = f'{", ".join(towers)}, weights found' if towers else 'none'
    return f'networks with weights of their own: {found}'


def unknown_names(cfg: Config) -> list[str]:
    """Types, arguments and settings that nothing knows, each with what is near."""
    _enter_scope(cfg)
    runs = {*inspect.signature(Runner).parameters, 'auto_scale_lr', 'custom_imports'}
    found = []
    for name in cfg.to_dict():
        near = difflib.get_close_matches(name, runs, n=1, cutoff=0.85)
        if name not in runs and near:
            found.append(f'{name} is not a setting of a run. Did you mean {near[0]}?')
    loaders = [name for name in cfg.to_dict() if name.endswith('_dataloader')]
    for place in filter(cfg.get, loaders):
        known = {*inspect.signature(DataLoader).parameters, 'num_batch_per_epoch'}
        for name in sorted(cfg[place].keys() - known - {'_scope_'}):
            found.append(f'{place} has no setting {name!r}.{_near(name, known)}')
    for node in _nodes(cfg.to_dict()):
        kind = _find_class(node['type'])
        if kind is None:
            names = {n for r in REGISTRIES for n in _registered(r)}
            found.append(
                f'type {node["type"]!r} is not registered.{_near(node["type"], names)}'
            )
            continue
        arguments = _arguments(kind)
        if arguments is None:
            continue
        for name in sorted(node.keys() - arguments - BUILDERS_KEYS):
            found.append(
                f'{node["type"]} has no argument {name!r}.{_near(name, arguments)}'
            )
    return list(dict.fromkeys(found))


def _near(name: str, known: set[str]) -> str:
    near = difflib.get_close_matches(name.split('.')[-1], known, n=3, cutoff=0.6)
    return f' Did you mean {" or ".join(near)}?' if near else ' Remove it.'


def _registered(root: registry.Registry) -> Iterator[str]:
    yield from root.module_dict
    for child in root.children.values():
        yield from _registered(child)


def _find_class(name: str) -> Any:
    scope = registry.DefaultScope.get_current_instance().scope_name
    for root in REGISTRIES:
        for place in (root.children.get(scope), root):
            kind = None if place is None else place.get(name)
            if kind is not None:
                return kind
    return None


def _arguments(kind: Any) -> set[str] | None:
    """Names of arguments, those that go on to bases included; None if any will do."""
    found: set[str] = set()
    for base in inspect.getmro(kind) if inspect.isclass(kind) else (kind,):
        if inspect.isclass(kind) and '__init__' not in vars(base):
            continue
        call = vars(base)['__init__'] if inspect.isclass(kind) else base
        try:
            parameters = inspect.signature(call).parameters.values()
        except (TypeError, ValueError):
            return None
        found |= {p.name for p in parameters}
        more = [p.name for p in parameters if p.kind is p.VAR_KEYWORD]
        if not more:
            return found
        if more != ['kwargs']:  # the base's have this name, those of a library another
            return None
    return None


def _student(cfg: Config) -> Any:
    """What is trained, without teacher, on no device."""
    _enter_scope(cfg)
    with torch.device('meta'):
        return registry.MODELS.build(for_inference(cfg).model).to('meta')


def _say_disk(cfg: Config, student: Any) -> str:
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    parameters = sum(p.numel() for p in student.parameters())
    # Weights and AdamW's two moments in float32; the newest is written beside the old.
    size = 12 * parameters * (max(hook.get('max_keep_ckpts', 1), 1) + 1)
    folder = Path(cfg.get('work_dir', 'work_dirs')).absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < size:
        raise ValueError(
            f'{folder} has {free / 1e9:.1f} GB free, and the checkpoints take about '
            f'{size / 1e9:.1f} GB. Free some, or name another place with --work-dir.'
        )
    return (
        f'disk: {free / 1e9:.0f} GB free; checkpoints take about {size / 1e9:.1f} GB '
        f'({parameters / 1e6:.0f} M parameters)'
    )


def _say_memory(cfg: Config, student: Any) -> str:
    learnt = sum(p.numel() for p in student.parameters() if p.requires_grad)
    batch = (cfg.get('train_dataloader') or {}).get('batch_size', 1)
    one, two = (_saved_bytes(student, n, cfg) for n in (1, 2))
    activations = one + (batch - 1) * (two - one)
    state = 16 * learnt  # weight, gradient and AdamW's two moments, float32
    return (
        f'memory of a GPU, estimated: {state / 1e9:.1f} GB for weights, gradients and '
        f'optimizer; {activations / 1e9:.1f} GB for activations of the backbone, about '
        f'half of it in mixed precision; heads and a teacher come on top'
    )


def _saved_bytes(student: Any, images: int, cfg: Config) -> int:
    """What the backbone's forward pass keeps for the backward pass, in bytes."""
    size = cfg.model.backbone.get('img_size', 224)
    height, width = (size, size) if isinstance(size, int) else size
    own = {p.untyped_storage()._cdata for p in student.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes()
            alive.append(storage)  # or its number is given to another
        return tensor

    alive: list = []
    student.train()
    view = torch.zeros(images, 3, height, width, device='meta')
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        student.extract_feat(view)
    return sum(kept.values())
