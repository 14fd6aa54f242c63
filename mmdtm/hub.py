"""mmdtm's configs by name, wherever it is installed, and their models for inference.

A name is the config's path below ``configs/`` without ``.py``, as in records, reports
and the model index: ``'dtm_vit-b_300e'``, ``'finetune/dtm_vit-b_100e_in1k'``. Bases of
a config of one's own take it with ``.py`` behind ``mmdtm::``, once this module is
imported. ``import mmdtm.plugin`` makes the names known to mmpretrain as well.
"""

from __future__ import annotations

import copy
import difflib
import functools
from pathlib import Path
from typing import Any

from mmengine.config import Config

PACKAGE = Path(__file__).resolve().parent
SCOPE = 'mmdtm::'
# Of what is resized to its shorter side, the part that the centre crop keeps.
CENTRE = 224 / 256


def shipped(name: str) -> Path:
    """Place of ``configs``, ``tools`` or ``examples``, installed or in a clone."""
    inside = PACKAGE / '.mim' / name
    return inside if inside.is_dir() else PACKAGE.parent / name


def config_names() -> list[str]:
    """Names of all configs that can be run, sorted."""
    folder = shipped('configs')
    paths = [path.relative_to(folder) for path in folder.rglob('*.py')]
    return sorted(
        path.with_suffix('').as_posix() for path in paths if '_base_' not in path.parts
    )


def find_config(name: str | Path) -> Path:
    """The file of a config.

    Args:
        name: A path that exists; or the name of one of mmdtm's configs, also with
            ``mmdtm::`` or ``configs/`` before it or ``.py`` behind.

    Raises:
        FileNotFoundError: If there is neither; lists similar names.
    """
    if Path(name).is_file():
        return Path(name)
    short = str(name).removeprefix(SCOPE).removeprefix('configs/').removesuffix('.py')
    found = shipped('configs') / f'{short}.py'
    if short and found.is_file():
        return found
    near = difflib.get_close_matches(short, config_names(), n=3, cutoff=0.5)
    raise FileNotFoundError(
        f'{name} is neither a file nor the name of a config of mmdtm. '
        + (f'Did you mean {" or ".join(near)}? ' if near else '')
        + '`mmdtm configs` lists all names.'
    )


def get_config(name: str | Path) -> Config:
    """Load a config by name or path; see :func:`find_config`."""
    import mmdtm.prepare  # noqa: F401  (lets mmpretrain's bases be found)

    return Config.fromfile(find_config(name))


def get_model(
    config: str | Path | Config,
    checkpoint: str | Path | None = None,
    device: str | None = None,
    **options: Any,
) -> Any:
    """Build a config's model for inference, without a teacher.

    Args:
        config: Name, path, or config.
        checkpoint: Of a run with it; a pre-training's serves wherever its backbone
            does. None: random weights.
        device: Where to; the CPU by default.
        **options: Settings of the model to replace: ``backbone=dict(img_size=384)``.

    Returns:
        mmpretrain's model, which its inferencers take as it is, or mmsegmentation's;
        in eval mode. ``extract_feat`` of a pre-training's gives the student's
        features of unmasked images.
    """
    cfg = config if isinstance(config, Config) else get_config(config)
    cfg = for_inference(cfg)
    if options:
        cfg.merge_from_dict({'model': options})
    checkpoint = None if checkpoint is None else str(checkpoint)
    if cfg.get('default_scope') == 'mmseg':
        from mmseg.apis import init_model

        return init_model(cfg, checkpoint, device=device or 'cpu')
    from mmpretrain.apis import get_model as build

    return build(cfg, checkpoint or False, device=device)


def for_inference(cfg: Config) -> Config:
    """What of a config makes features and predictions.

    The model of a pre-training is reduced to its student, and a test pipeline is
    added: resize, centre crop. No pre-trained checkpoint is asked for.

    Args:
        cfg: Any config; left as it is.
    """
    from mmpretrain.models import BaseSelfSupervisor
    from mmpretrain.registry import MODELS

    cfg = copy.deepcopy(cfg)
    model = cfg.model
    if 'init_cfg' in model.get('backbone', {}):
        model.backbone.init_cfg = None
    kind = MODELS.get(model.type) if isinstance(model.type, str) else model.type
    if isinstance(kind, type) and issubclass(kind, BaseSelfSupervisor):
        norm = {k: model.data_preprocessor[k] for k in ('mean', 'std', 'to_rgb')}
        cfg.model = dict(
            type='PretrainedBackbone',
            backbone=model.backbone,
            data_preprocessor=dict(type='SelfSupDataPreprocessor', **norm),
        )
    if not cfg.get('test_dataloader'):
        size = model.backbone.get('img_size', 224)
        dataset = dict(type='UnlabeledImages', pipeline=centre_pipeline(size))
        cfg.test_dataloader = dict(dataset=dataset)
    return cfg


def centre_pipeline(size: int) -> list[dict]:
    """Read an image, resize its shorter side, and crop the centre to ``size``."""
    return [
        dict(type='LoadWholeImage'),
        dict(
            type='ResizeEdge',
            scale=round(size / CENTRE),
            edge='short',
            interpolation='bicubic',
            backend='pillow',
        ),
        dict(type='CenterCrop', crop_size=size),
        dict(type='PackInputs'),
    ]


def connect_mmengine() -> None:
    """Let ``_base_ = 'mmdtm::...'`` be found, which mmengine keeps for OpenMMLab's.

    Past its scopes, too: the classes of these configs are mmpretrain's.
    """
    original = Config._get_cfg_path

    def get_cfg_path(cfg_path: str, filename: str) -> tuple[str, str | None]:
        if cfg_path.startswith(SCOPE):
            return str(find_config(cfg_path)), None
        return original(cfg_path, filename)

    Config._get_cfg_path = staticmethod(get_cfg_path)


def connect_mmpretrain() -> None:
    """Let mmpretrain's ``list_models``, ``get_model`` and inferencers know the names.

    By name they build what :func:`for_inference` makes of the config, and so do the
    inferencers for a config of mmdtm that is given as a file.
    """
    from mmpretrain.apis import base, model

    hub = model.ModelHub
    register, get, build = hub._register_mmpretrain_models, hub.get, base.get_model
    ours: set[str] = set()

    def register_all() -> None:
        register()
        if not ours:  # when asked for the first time: parsing takes a while
            ours.update(config_names())
            metafile = shipped('configs') / 'metafile.yml'
            hub.register_model_index(metafile, config_prefix=metafile.parent.parent)

    def get_metainfo(model_name: str):
        metainfo = get(model_name)
        if metainfo.name in ours:
            metainfo.config = for_inference(metainfo.config)
        return metainfo

    @functools.wraps(build)
    def get_model(model, *args, **kwargs):
        if isinstance(model, (str, Path)) and Path(model).suffix == '.py':
            model = Config.fromfile(model)
        if isinstance(model, Config):
            imports = (model.get('custom_imports') or {}).get('imports', [])
            if 'mmdtm.plugin' in imports:
                model = for_inference(model)
        return build(model, *args, **kwargs)

    hub._register_mmpretrain_models = staticmethod(register_all)
    hub.get = staticmethod(get_metainfo)
    base.get_model = get_model


connect_mmengine()
