"""Reading weights from a file, and nothing else from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from .checkpoints import check_finite, no_weights, read_checkpoint, reshaped, shorten


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors from a ``.safetensors`` file or a file of ``torch.save``.

    Nothing in the file is executed, see
    :func:`~mmdtm.io.checkpoints.read_checkpoint`. A state dict may lie under
    'state_dict', 'model' or 'module', as training programs save it, and have the
    prefix 'module.' that DDP gives.

    Args:
        path: The file.

    Returns:
        The tensors by name, on the CPU, and a safetensors file's metadata (else empty).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, holds anything but plain weights, or
            values that are not finite, or is a TorchScript archive.
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
        content = read_checkpoint(path)
    for wrapper in ('state_dict', 'model', 'module'):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not any(
        isinstance(value, Tensor) for value in content.values()
    ):
        raise no_weights(path, content)
    weights = {
        name.removeprefix('module.'): value
        for name, value in content.items()
        if isinstance(value, Tensor)
    }
    check_finite(weights, path)
    return weights, metadata


def check_weights(
    path: str | Path,
    expected: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    description: str,
) -> None:
    """Compare names and shapes before loading.

    Args:
        path: Where ``found`` was read, for the message.
        expected: State dict of the network.
        found: State dict from the file.
        description: What the file should be, for the message.

    Raises:
        ValueError: If names or shapes differ; lists them.
    """
    differences = {
        'missing': [name for name in expected if name not in found],
        'not expected': [name for name in found if name not in expected],
        'of another shape': reshaped(expected, found),
    }
    problems = [
        f'{kind}: {shorten(names)}' for kind, names in differences.items() if names
    ]
    if problems:
        raise ValueError(
            f'{path} is not {description}. Give weights of this architecture, or name '
            f'the architecture of these; keys {"; ".join(problems)}'
        )
