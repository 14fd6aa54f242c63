"""Reading weights from a file, and nothing else from it."""

from __future__ import annotations

import argparse
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mmdtm.compat import checkpoint_globals, refusal


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors from a ``.safetensors`` file or a file of ``torch.save``.

    Nothing in the file is executed: pickles are read by torch's weights-only
    loader. A state dict may lie under 'state_dict', 'model' or 'module', as
    training programs save it, and have the prefix 'module.' that DDP gives.

    Args:
        path (str or Path): The file.

    Returns:
        tuple[dict[str, Tensor], dict[str, str]]: The tensors by name, on the
        CPU, and a safetensors file's metadata (else empty).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, holds anything but plain weights,
            or is a TorchScript archive.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f'There are no weights at {path.absolute()}. Download them, or give the '
            'path of the file.'
        )
    metadata: dict[str, str] = {}
    if path.suffix == '.safetensors':
        try:
            with safe_open(path, framework='pt') as file:
                metadata = file.metadata() or {}
                content = {name: file.get_tensor(name) for name in file.keys()}
        except SafetensorError as error:
            raise ValueError(
                f'{path} is not a whole safetensors file ({error}). Download it again.'
            ) from error
    else:
        content = _read_torch_file(path)
    for wrapper in ('state_dict', 'model', 'module'):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not any(
        isinstance(value, Tensor) for value in content.values()
    ):
        raise ValueError(
            f'{path} holds no weights: expected tensors by name, plainly or under '
            f"'state_dict', and found {_describe(content)}."
        )
    weights = {
        name.removeprefix('module.'): value
        for name, value in content.items()
        if isinstance(value, Tensor)
    }
    return weights, metadata


def check_weights(
    path: str | Path,
    expected: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    description: str,
) -> None:
    """Compare names and shapes before loading.

    Args:
        path (str or Path): Where ``found`` was read, for the message.
        expected (Mapping[str, Tensor]): State dict of the network.
        found (Mapping[str, Tensor]): State dict from the file.
        description (str): What the file should be, for the message.

    Raises:
        ValueError: If names or shapes differ; lists them.
    """
    differences = {
        'missing': [name for name in expected if name not in found],
        'not expected': [name for name in found if name not in expected],
        'of another shape': [
            f'{name} {tuple(found[name].shape)} instead of {tuple(value.shape)}'
            for name, value in expected.items()
            if name in found and found[name].shape != value.shape
        ],
    }
    problems = [
        f'{kind}: {shorten(names)}' for kind, names in differences.items() if names
    ]
    if problems:
        raise ValueError(f'{path} is not {description}. Keys ' + '; '.join(problems))


def shorten(names: Iterable[str], limit: int = 6) -> str:
    """Join names for a message, the first few and a count of the rest."""
    names = list(names)
    more = f' and {len(names) - limit} more' if len(names) > limit else ''
    return ', '.join(names[:limit]) + more


def _read_torch_file(path: Path):
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith('/constants.pkl') for name in archive.namelist()):
                raise ValueError(
                    f"{path} is a TorchScript archive (OpenAI's CLIP files are), a "
                    'program rather than plain weights, and is not executed here. '
                    'Convert it once, if you trust its source:\n'
                    '  python tools/converters/openai_clip_to_open_clip.py '
                    f'{path} {path.with_suffix(".safetensors")}\n'
                    'and give the path of the converted file.'
                )
    try:
        # Training programs save their logs and command line beside the weights.
        allowed = [argparse.Namespace, *checkpoint_globals()]
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f'{path} is not loaded: it is no file of torch.save, or holds objects '
            f'other than plain weights ({refusal(error)}), and unpickling those could '
            'run any code. Nothing of it was executed. If it should hold weights, '
            'download it again; if you trust its source, save its tensors as a '
            "'state_dict' alone or as .safetensors."
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise ValueError(
            f'{path} cannot be read as a file of torch.save ({error}). It may be '
            'truncated: download it again.'
        ) from error


def _describe(content) -> str:
    if isinstance(content, Mapping):
        return f'the keys {shorten(map(str, content))}' if content else 'nothing'
    return f'a {type(content).__name__}'
