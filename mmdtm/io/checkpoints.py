"""Checkpoints read as weights only: nothing in a file is executed."""

import argparse
import errno
import os
import pickle
import stat
import types
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlparse

import numpy as np
import torch


def read_checkpoint(
    file: str | os.PathLike | IO[bytes],
    map_location: Any = 'cpu',
    mmap: bool = False,
) -> dict:
    """Read a file of ``torch.save`` that holds weights, logs and numbers.

    Pickles are read by torch's weights-only loader; beside tensors, only what
    mmengine's Runner and other training programs save is allowed: logs, numpy
    numbers, a parsed command line.

    Args:
        file: The checkpoint.
        map_location: Device of the tensors, as torch.load takes it.
        mmap: Leave the tensors on the disk until they are used.

    Returns:
        The checkpoint, without ``meta['config']``, Python text that Runner.resume would
        execute.

    Raises:
        OSError: If the file cannot be opened.
        ValueError: If it is damaged, holds anything that could execute code, holds
            no weights, is a TorchScript archive, or would unpack to far more
            than it is.
    """
    name = file if isinstance(file, (str, os.PathLike)) else 'The checkpoint'
    size = _size(file)
    _check_archive(file, name, size)
    try:
        with torch.serialization.safe_globals(_allowed_globals()):
            content = torch.load(
                file, map_location=map_location, weights_only=True, mmap=mmap
            )
    except pickle.UnpicklingError as error:
        # torch's own words go on to recommend loading without protection.
        why = str(error.__context__ or error).split('. Please use')[0]
        raise ValueError(
            f'{name} is not loaded: it is not a checkpoint, or holds more than weights '
            f'and logs ({why}), and unpickling that could run any code. Download it '
            'again if it should hold weights; if you trust where it comes from, keep '
            'its tensors alone: torch.save(model.state_dict(), ...).'
        ) from None
    except Exception as error:  # the bytes of a damaged file can lead anywhere
        # To a place before the file's begin, too, which is an invalid argument.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise ValueError(
            f'{name} is not loaded: it is damaged, or not a checkpoint ({error!r}). '
            'Copy or download it again.'
        ) from error
    if not isinstance(content, dict) or not isinstance(
        content.get('state_dict', {}), Mapping
    ):
        raise no_weights(name, content)
    _check_tensors(content.get('state_dict', content), name, size)
    if isinstance(content.get('meta'), dict):
        content['meta'].pop('config', None)
    return content


def no_weights(name: object, content: object) -> ValueError:
    """The error for a file without tensors by name."""
    if not isinstance(content, Mapping):
        found = f'a {type(content).__name__}'
    elif not content:
        found = 'nothing'
    else:
        found = f'the keys {shorten(map(str, content))}'
    return ValueError(
        f'{name} holds no weights: expected tensors by name, plainly or under '
        f"'state_dict', and found {found}. Name a checkpoint or a state dict."
    )


def shorten(names: Iterable[str], limit: int = 6) -> str:
    """Join names for a message, the first few and a count of the rest."""
    names = list(names)
    more = f' and {len(names) - limit} more' if len(names) > limit else ''
    return ', '.join(names[:limit]) + more


def under(state: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The part of a state dict whose names start with a prefix, without it."""
    return {
        name.removeprefix(prefix): value
        for name, value in state.items()
        if name.startswith(prefix)
    }


def reshaped(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """What tensors of both state dicts have different shapes, in words."""
    return [
        f'{name} is {tuple(found[name].shape)}, here {tuple(value.shape)}'
        for name, value in expected.items()
        if name in found and found[name].shape != value.shape
    ]


def check_finite(weights: Mapping, name: object) -> None:
    """Refuse weights that make whatever is computed with them meaningless.

    Args:
        weights: Tensors by name; what is not a tensor does not matter.
        name: Of their file, for the message.

    Raises:
        ValueError: If one is NaN or infinite; names the tensors. Minus infinity
            passes, since attention masks have it.
    """
    bad = [
        key
        for key, value in weights.items()
        if isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and value.is_floating_point()
        # False for NaN, too; types of 8 bits cannot be compared.
        and not ((value if value.element_size() > 1 else value.half()) < np.inf).all()
    ]
    if bad:
        raise ValueError(
            f'{name} has NaN or infinite values in {len(bad)} of {len(weights)} '
            f'tensors: {shorten(map(str, bad))}. The training that wrote it had gone '
            'astray: take one of its earlier checkpoints, or download it again.'
        )


def _size(file: str | os.PathLike | IO[bytes]) -> int:
    if isinstance(file, (str, os.PathLike)):
        about = os.stat(file)
        if not stat.S_ISREG(about.st_mode):  # a pipe would be waited for
            raise ValueError(f'{file} is not a file. Name a checkpoint.')
        return about.st_size
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    return size


def _check_tensors(weights: Mapping, name: object, size: int) -> None:
    """Refuse tensors that stand for far more numbers than the file has."""
    for key, value in weights.items():
        if isinstance(value, torch.Tensor):
            claimed = value.numel() * value.element_size()
            if claimed > max(2 * size, 2**26):  # small ones may be expanded
                raise ValueError(
                    f'{name} is not loaded: {key} has the shape {tuple(value.shape)} '
                    f'of {claimed:,} bytes, in a file of {size:,}. Download it again, '
                    'from its source.'
                )


def _check_archive(
    file: str | os.PathLike | IO[bytes], name: object, size: int
) -> None:
    """Refuse, before it is read, a zip archive that no ``torch.save`` wrote."""
    if not zipfile.is_zipfile(file):
        return
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError):
        return  # torch says what is wrong
    if not isinstance(file, (str, os.PathLike)):
        file.seek(0)
    if any(member.filename.endswith('/constants.pkl') for member in members):
        path = Path(file) if isinstance(file, (str, os.PathLike)) else Path('model.pt')
        raise ValueError(
            f"{name} is a TorchScript archive (OpenAI's CLIP files are), a program "
            'rather than plain weights, and is not executed here. Convert it once, if '
            'you trust its source:\n'
            '  python tools/converters/openai_clip_to_open_clip.py '
            f'{path} {path.with_suffix(".safetensors")}\n'
            'and give the path of the converted file.'
        )
    unpacked = sum(member.file_size for member in members)
    if unpacked > 2 * size:  # torch.save does not compress
        raise ValueError(
            f'{name} is not loaded: its {size:,} bytes would unpack to {unpacked:,}, '
            'and torch.save writes no such file. Download it again, from its source.'
        )


def _getattr_of_history(owner: type, name: str):
    """All of ``getattr`` that a log needs, since the whole can reach anything."""
    from mmengine.logging import HistoryBuffer

    if owner is HistoryBuffer and name in ('min', 'max', 'mean', 'current'):
        return getattr(owner, name)
    raise pickle.UnpicklingError(f'getattr({owner!r}, {name!r})')


def _allowed_globals() -> list:
    """What training programs save beside tensors."""
    from mmengine.logging import HistoryBuffer

    core = np._core if hasattr(np, '_core') else np.core
    rebuild = [core.multiarray._reconstruct, core.multiarray.scalar]
    kinds = 'f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 ?'.split()
    return [
        argparse.Namespace,
        HistoryBuffer,
        (_getattr_of_history, 'builtins.getattr'),
        np.ndarray,
        np.dtype,
        *{type(np.dtype(kind)) for kind in kinds},
        # numpy 2 renamed numpy.core; files may come from either.
        *(
            (f, f'numpy.{c}.multiarray.{f.__name__}')
            for f in rebuild
            for c in ('core', '_core')
        ),
    ]


def guard_mmengine() -> None:
    """Let everything that mmengine loads be read by :func:`read_checkpoint`.

    A patch of ``mmengine.runner.checkpoint``, since load_from, resume and
    init_cfg, of any config, go through that module's own ``torch.load`` and
    ``load_url``, for some sources past its registry of loaders. mmengine (to
    0.10.7; open-mmlab/mmengine#1655) leaves ``weights_only`` to torch, which then
    refuses a Runner's own logs; the forks (to 0.10.12) allow ``getattr`` and,
    where torch refuses a file, unpickle it without protection.
    """
    from mmengine.runner import checkpoint

    def load(file, map_location=None, weights_only=True):
        content = read_checkpoint(file, map_location)
        name = file if isinstance(file, (str, os.PathLike)) else 'The checkpoint'
        # It may be a bare state dict.
        for part in (content, *map(content.get, ('state_dict', 'ema_state_dict'))):
            check_finite(part if isinstance(part, Mapping) else {}, name)
        return content

    def load_url(
        url, model_dir=None, map_location=None, progress=True, check_hash=False
    ):
        name = Path(urlparse(url).path).name
        file = Path(model_dir or Path(torch.hub.get_dir(), 'checkpoints'), name)
        if not file.exists():
            digest = torch.hub.HASH_REGEX.search(name) if check_hash else None
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(
                url, str(file), digest and digest[1], progress=progress
            )
        return load(file, map_location)

    class Torch(types.ModuleType):
        """torch, but for ``load``."""

        def __getattr__(self, name: str):
            return getattr(torch, name)

    checkpoint.torch = Torch('torch')
    checkpoint.torch.load = checkpoint._safe_torch_load = load
    checkpoint.load_url = load_url
