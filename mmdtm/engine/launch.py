"""What training and testing share: from arguments to a Runner."""

import argparse
import atexit
import errno
import fcntl
import functools
import os
import socket
import sys
import warnings
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import torch
from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.model import is_model_wrapper
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmdtm.hub import get_config
from mmdtm.models.backbones.loading import check_upstream


def argument_parser(description: str) -> argparse.ArgumentParser:
    """The arguments that training and testing have in common."""
    parser = argparse.ArgumentParser(description=description)
    add = parser.add_argument
    add('config', help='config file, or name (mmdtm configs)')
    text = 'where logs and checkpoints go; work_dirs/<config name> by default'
    add('--work-dir', help=text)
    add(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        metavar='KEY=VALUE',
        help="override parts of the config: train_cfg.max_epochs=2, key='[a,b]'",
    )
    add(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='who started the processes; tools/dist_*.sh and slurm_*.sh set it',
    )
    add('--local_rank', '--local-rank', type=int, default=0)
    return parser


def load_config(args: argparse.Namespace) -> Config:
    """Reads the config, and merges what both tools' arguments say into it."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = get_config(args.config)
    cfg.merge_from_dict(args.cfg_options)
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / Path(args.config).stem)
    _set_dataloader_defaults(cfg)
    return cfg


def build_runner(cfg: Config) -> Runner:
    """Builds the config's runner for this machine, see :func:`fit_to_device`."""
    _check_schedule(cfg)
    if cfg.get('randomness', {}).get('deterministic'):
        # Else torch refuses to call cuBLAS, which reads it when it starts.
        os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
    fit_to_device(cfg)
    _start_from_one_place(cfg)
    _compile_the_parts(cfg)
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    _name_the_file(runner)
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    if hasattr(model, 'backbone'):
        check_upstream(model.backbone)
    _outlive_full_disks(runner)
    return runner


def _check_schedule(cfg: Config) -> None:
    """Refuse a run that is over before its rate begins to fall.

    Raises:
        ValueError: If a scheduler that lasts to the end begins after it.
    """
    loop = cfg.get('train_cfg') or {}
    for number, item in enumerate(cfg.get('param_scheduler') or []):
        if not isinstance(item, dict) or 'end' in item:
            continue
        unit = 'epochs' if item.get('by_epoch', True) else 'iters'
        length, begin = loop.get(f'max_{unit}'), item.get('begin', 0)
        if length and begin >= length:
            raise ValueError(
                f'train_cfg.max_{unit}={length} is not beyond the begin={begin} of '
                f'param_scheduler.{number} ({item["type"]}). Train longer, or warm up '
                f'in less: --cfg-options param_scheduler.{number - 1}.end=N '
                f'param_scheduler.{number}.begin=N.'
            )


def _compile_the_parts(cfg: Config) -> None:
    """Turn mmengine's key ``compile`` into the option of DTM, in place.

    mmengine compiles the whole training step, optimizer and all, which fails in the
    first one and would compile anew for every schedule of the morphing.

    Raises:
        ValueError: If the model has no such option.
    """
    options = cfg.get('compile')
    if not options:
        return
    kind = str(cfg.model.get('type')).split('.')[-1]
    if kind not in ('DTM', 'DTMDistillation'):
        raise ValueError(
            f'compile is for pre-training with DTM or DTMDistillation, and the model '
            f'is {kind}. Remove compile from the config.'
        )
    cfg.pop('compile')
    cfg.model.compile = options


def _start_from_one_place(cfg: Config) -> None:
    """Ask for no pre-trained backbone where a whole checkpoint follows, in place."""
    backbone = cfg.model.get('backbone')
    init_cfg = backbone.get('init_cfg') if isinstance(backbone, dict) else None
    unnamed = isinstance(init_cfg, dict) and init_cfg.get('checkpoint') == ''
    if unnamed and (cfg.get('resume') or cfg.get('load_from')):
        backbone.init_cfg = None


def _name_the_file(runner: Runner) -> None:
    """Let an error about a checkpoint say which; the backbone is not told."""
    load_checkpoint = runner.load_checkpoint

    def load(filename: str, *args, **kwargs):
        try:
            return load_checkpoint(filename, *args, **kwargs)
        except ValueError as error:
            if str(filename) in str(error):
                raise
            raise ValueError(f'{filename}: {error}') from error

    runner.load_checkpoint = load


def _outlive_full_disks(runner: Runner) -> None:
    """Let a run go on when its curves cannot be written, and say so once."""
    for backend in runner.visualizer._vis_backends.values():
        for name in ('add_scalar', 'add_scalars', 'add_image', 'close'):
            setattr(backend, name, _outliving(runner, backend, getattr(backend, name)))


def _outliving(runner: Runner, backend, write: Callable) -> Callable:
    failed = False

    @functools.wraps(write)
    def attempt(*args, **kwargs):
        nonlocal failed
        try:
            write(*args, **kwargs)
            failed = False
        except OSError as error:
            if hasattr(backend, '_tensorboard'):  # its writer gives up for good
                backend._env_initialized = False  # so that it gets another
            if not failed:
                failed = True
                runner.logger.error(
                    f'{type(backend).__name__} cannot write: {error}. Training goes '
                    'on; make room, or what it should have written is missing.'
                )

    return attempt


def claim_folder(folder: str, launcher: str = 'none') -> None:
    """Keep a work folder to this run until its processes end.

    The first process locks ``.lock`` in it, and writes down there who it is. The
    system frees the lock when the process ends, however it does.

    Args:
        folder: Is made if need be.
        launcher: As ``--launcher``.

    Raises:
        BlockingIOError: Another run is at work there; names its host and process.
    """
    if launcher != 'none' and rank() != 0:
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    file = Path(folder, '.lock').open('a+')
    _claims.append(file)  # a closed file is not locked any more
    try:
        # Of this process alone: workers that outlive it do not hold it.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            warnings.warn(
                f'{folder} cannot be locked ({error}): see to it that no other run '
                'is started there.',
                stacklevel=2,
            )
            return
        file.seek(0)
        raise BlockingIOError(
            f'{folder}: another run is at work here, {file.read().strip()}. Wait for '
            'it or stop it, or name another folder with --work-dir.'
        ) from None
    file.truncate(0)
    now = datetime.now().isoformat(' ', 'seconds')
    file.write(f'process {os.getpid()} on {socket.gethostname()} since {now}\n')
    file.flush()


_claims: list[IO] = []


def rank() -> int:
    """This process's number, by its launcher's environment."""
    names = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')
    return int(next((os.environ[name] for name in names if name in os.environ), 0))


def leave_processes(code: int = 0) -> None:
    """Ends this process of a finished run, if it is one of several.

    A thread of gloo that outlives the interpreter aborts the process, and
    torchrun reports the finished run as failed. So once all are here and what is
    registered for the end has run, the interpreter does not end in its own time.

    Args:
        code: What the process exits with.
    """
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def fit_to_device(cfg: Config) -> None:
    """Changes in place what a config asks of a GPU when there is none.

    Mixed precision is switched off, SyncBN becomes BN and pinned memory is
    off, and processes talk through gloo. One warning, of the first process,
    names what else the run would have used.
    """
    if get_device() not in ('cpu', 'mps'):
        return
    changes = []
    wrapper = cfg.get('optim_wrapper', {})
    kind = str(wrapper.get('type')).split('.')[-1]
    if kind == 'AmpOptimWrapper':
        wrapper.type = 'OptimWrapper'
        for key in ('loss_scale', 'dtype', 'use_fsdp'):
            wrapper.pop(key, None)
    if kind == 'MixedPrecisionOptimWrapper':
        wrapper.dtype = 'float32'
    if kind in ('AmpOptimWrapper', 'MixedPrecisionOptimWrapper'):
        changes.append('mixed precision is off')
    for loop in ('val_cfg', 'test_cfg'):
        if (cfg.get(loop) or {}).get('fp16'):
            cfg[loop].fp16 = False
            changes.append(f'mixed precision of {loop} is off')
    if _replace_type(cfg.get('model'), 'SyncBN', 'BN') + bool(cfg.pop('sync_bn', None)):
        changes.append('SyncBN is replaced by BN')
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        if cfg.get(loader):
            cfg[loader].pin_memory = False
    if cfg.launcher != 'none':
        cfg.setdefault('env_cfg', {})
        cfg.env_cfg.setdefault('dist_cfg', {})
        cfg.env_cfg.dist_cfg.backend = 'gloo'
        wrapper_cfg = cfg.get('model_wrapper_cfg') or dict(
            type='MMDistributedDataParallel',
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        )
        cfg.model_wrapper_cfg = {**wrapper_cfg, 'device_ids': None}
    if changes and rank() == 0:
        warnings.warn(f'No GPU here: {", ".join(changes)}.', stacklevel=2)


def find_checkpoint(path: str) -> str:
    """The checkpoint to resume from.

    Args:
        path: A checkpoint, or the folder of a run. In a folder it is the one
            that ``last_checkpoint`` names (also when the folder has been moved
            since), else the newest of its ``epoch_*.pth`` and ``iter_*.pth``.

    Raises:
        FileNotFoundError: If there is no such file, or no checkpoint in the folder.
    """
    if '://' in path or Path(path).is_file():
        return path
    folder = Path(path)
    if folder.suffix == '.pth' and not folder.is_dir():
        raise FileNotFoundError(
            f'--resume: there is no checkpoint {path}. Name one that exists, or '
            'leave its name out to go on from the newest of the work folder.'
        )
    named = folder / 'last_checkpoint'
    if named.is_file():
        last = Path(named.read_text(errors='replace').strip())
        for candidate in (folder / last.name, last):
            if candidate.is_file():
                return str(candidate)
    saved = [*folder.glob('epoch_*.pth'), *folder.glob('iter_*.pth')]
    if not saved:
        raise FileNotFoundError(
            f'--resume: there is no checkpoint in {folder}. Name one with '
            '--resume PATH or its folder with --work-dir, or leave --resume out '
            'to start anew.'
        )
    return str(max(saved, key=lambda file: file.stat().st_mtime))


def _set_dataloader_defaults(cfg: Config) -> None:
    """Completes what mmpretrain's configs leave to the tool."""
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg.get(name)
        if not loader:
            continue
        if cfg.get('default_scope') == 'mmpretrain':  # mmsegmentation's leave nothing
            loader.setdefault('collate_fn', dict(type='default_collate'))
            loader.setdefault('pin_memory', True)
            loader.setdefault('persistent_workers', True)
        if not loader.get('num_workers'):
            loader.num_workers = 0
            loader.persistent_workers = False  # torch refuses them without workers


def _replace_type(node: object, old: str, new: str) -> bool:
    """Rename a ``type`` everywhere below a config node; whether it was found."""
    found = [n for n in nodes(node) if isinstance(n, dict) and n.get('type') == old]
    for part in found:
        part['type'] = new
    return bool(found)


def nodes(node: object) -> Iterator[Any]:
    """A node of a config and all below it, each before its children."""
    yield node
    if isinstance(node, (dict, list, tuple)):
        for child in node.values() if isinstance(node, dict) else node:
            yield from nodes(child)
