"""What a run's record says when it begins; :mod:`mmdtm.run_record` reads it."""

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
from datetime import datetime, timezone
from pathlib import Path

import torch
from mmengine.config import Config
from mmpretrain.models import BaseClassifier, BaseSelfSupervisor
from torch import nn

from mmdtm import __version__
from mmdtm.models.target_generators import TargetGenerator
from mmdtm.run_record import PACKAGE, config_docstring, config_name, hash_file

from .launch import fit_to_device, nodes

# What makes a run another than its config says; where its data lie, what it starts
# from and how its GPUs compute does not.
RECIPE = re.compile(r'model\.|train_cfg\.|optim_wrapper\.|param_scheduler|train_data')
NOT_RECIPE = re.compile(
    r'\.init_cfg|\.data_root$|^optim_wrapper\.(type|dtype|loss_scale|use_fsdp|accum)'
    r'|^train_dataloader\.(?!dataset)'
)
LIBRARIES = 'torch torchvision numpy mmengine mmcv mmpretrain mmseg open_clip timm'


def new_record(
    cfg: Config, model: nn.Module, seed: int | None, processes: int, device: str
) -> dict:
    """Describe a run of a model on so many devices (``'cuda'`` or ``'cpu'``)."""
    file = cfg.filename or ''
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
        config=config_name(file),
        # Of a config from a string, the file is gone.
        title=config_docstring(file)[0] if os.path.isfile(file) else '',
        kind=describe_kind(model),
        smoke=bool(cfg.get('smoke')),
        changes={} if cfg.get('smoke') else _changes(cfg),
        parent=None,
        teachers=describe_teachers(model),
        files=_hash_files(cfg),
        full_config=cfg.to_dict(),
        starts=[start],
    )


def describe_kind(model: nn.Module) -> str:
    """What training this model is, by its class: the name that reports filter by."""
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
    found: dict[str, str | bool] = dict(version=__version__)
    if (PACKAGE.parent / '.git').exists():
        try:
            found['commit'] = _git('rev-parse', 'HEAD')
            changed = _git('status', '--porcelain', '--untracked-files=no')
            found['changed'] = bool(changed)
        except (OSError, subprocess.SubprocessError):
            pass  # no git, or a repository of somebody else
    return found


def describe_versions() -> dict[str, str]:
    """Of Python and of the libraries that this process has loaded."""
    loaded = {name: sys.modules.get(name) for name in LIBRARIES.split()}
    versions = {
        name: str(getattr(module, '__version__', 'unknown'))
        for name, module in loaded.items()
        if module
    }
    return dict(python=platform.python_version(), **versions)


def describe_hardware(processes: int, device: str) -> dict:
    """The machine of the first process, and how many work together."""
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


def describe_teachers(model: nn.Module) -> list[dict]:
    """Class and SHA-256 of the weights of each frozen teacher in a model.

    The hash is of what is computed with, so it is known for a tag that
    open_clip downloads as well as for a file.
    """
    return [
        dict(type=type(part).__name__, weights_sha256=_hash_weights(part.teacher))
        for part in model.modules()
        if isinstance(part, TargetGenerator)
    ]


def _hash_weights(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f'{name} {tensor.dtype} {tuple(tensor.shape)}'.encode())
        numbers = tensor.detach().cpu().contiguous().flatten()
        digest.update(numbers.view(torch.uint8).numpy())
    return digest.hexdigest()


def _hash_files(cfg: Config) -> dict[str, str]:
    """SHA-256 of each file that the config's model, or ``load_from``, names."""
    values = [cfg.get('load_from'), *nodes(cfg.get('model'))]
    paths = [v for v in values if isinstance(v, str) and os.path.isfile(v)]
    return {path: hash_file(path) for path in dict.fromkeys(paths)}


def initial_checkpoints(model_cfg: object) -> list[str]:
    """Files of all ``init_cfg`` of type Pretrained below a model's config."""
    return [
        node['checkpoint']
        for node in nodes(model_cfg)
        if isinstance(node, dict) and node.get('type') == 'Pretrained'
        if isinstance(node.get('checkpoint'), str)
    ]


def _changes(cfg: Config) -> dict:
    """Settings of the recipe that are others than in the config's file."""
    if not cfg.filename or not Path(cfg.filename).is_file():
        return {}
    file = Config.fromfile(cfg.filename, import_custom_modules=False)
    file.launcher = cfg.get('launcher', 'none')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # said once, when the run's own was fitted
        fit_to_device(file)
    old, new = flatten(file.to_dict()), flatten(cfg.to_dict())
    return {
        name: new.get(name)
        for name in sorted(old.keys() | new.keys())
        if RECIPE.match(name) and not NOT_RECIPE.search(name)
        if old.get(name) != new.get(name)
    }


def flatten(node: dict, prefix: str = '') -> dict:
    """Values by dotted name, as JSON has them; lists are values."""
    found: dict = {}
    for key, value in node.items():
        if isinstance(value, dict):
            found |= flatten(value, f'{prefix}{key}.')
        else:
            found[f'{prefix}{key}'] = json.loads(json.dumps(value, default=str))
    return found


def _git(*args: str) -> str:
    command = ['git', '-C', str(PACKAGE.parent), *args]
    return subprocess.check_output(
        command, stderr=subprocess.DEVNULL, text=True, timeout=20
    ).strip()
