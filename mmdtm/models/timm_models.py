"""Networks of timm by their names, with their weights."""

import difflib
from pathlib import Path
from typing import Any

from mmdtm.io.weights import read_weights
from mmdtm.models.downloads import find_file, require_network


def create_timm(model: str, pretrained: bool | str = False, **options) -> Any:
    """Build a network of timm without its classifier.

    Args:
        model: timm's name, with or without a tag, as 'vit_base_patch14_dinov2.lvd142m'.
        pretrained: True takes timm's weights from the hub or its cache, a path those of
            a local file, in timm's key names or any that timm converts. False draws
            them.
        **options: Of ``timm.create_model``.

    Raises:
        FileNotFoundError: If the file is missing or the weights cannot be
            downloaded.
        ValueError: If the model is unknown, or the file is not of this model or not
            plain weights.
    """
    import timm  # when a network is built, for it takes a second

    _check_name(model)
    options['num_classes'] = 0
    if not isinstance(pretrained, str):
        try:
            return timm.create_model(model, pretrained=pretrained, **options)
        except Exception as error:  # every network library raises its own
            if not pretrained:
                raise
            raise FileNotFoundError(_no_download(model, error)) from error
    weights, _ = read_weights(pretrained)
    try:
        heads = timm.models.get_pretrained_cfg_value(model, 'classifier') or ()
        heads = (heads,) if isinstance(heads, str) else heads
        for key in list(weights):
            if key.startswith(tuple(f'{head}.' for head in heads)):
                del weights[key]
        # timm loads strictly only where the numbers of classes agree.
        overlay = dict(state_dict=weights, num_classes=0, label_offset=0)
        network: Any = timm.create_model(
            model, pretrained=True, pretrained_cfg_overlay=overlay, **options
        )
    except Exception as error:  # the converters of timm fail in their own ways
        raise ValueError(
            f"{pretrained} does not hold timm's {model} ({error}). Give the weights "
            'of this model, or name the model that they are of.'
        ) from error
    network.pretrained_cfg.pop('state_dict', None)  # or it stays in memory
    return network


def require_timm(model: str, pretrained: bool | str) -> None:
    """Ask whether a network's weights are there or can be downloaded, within seconds.

    Args:
        model: As of :func:`create_timm`.
        pretrained: Likewise.

    Raises:
        FileNotFoundError: If they are neither.
        ValueError: If the model is unknown.
    """
    import timm

    _check_name(model)
    if isinstance(pretrained, str):
        if not Path(pretrained).is_file():
            raise FileNotFoundError(
                f'{Path(pretrained).absolute()} is missing, the weights of {model}. '
                'Put the file there, or name another one as pretrained.'
            )
        return
    scheme, _, place = model.rpartition(':')
    if not pretrained or scheme == 'local-dir':
        return
    known = None if scheme else timm.models.get_pretrained_cfg(model)
    repository = place if scheme else getattr(known, 'hf_hub_id', None)
    if repository:
        names = ('model.safetensors', 'pytorch_model.bin')
        if find_file(repository, *names):
            return
        tag = dict(hf_hub=repository)
    elif known is not None and known.url:
        tag = dict(url=known.url)
    else:
        return  # timm has none, and says so
    try:
        require_network(tag)
    except OSError as error:
        raise FileNotFoundError(_no_download(model, error)) from error


def _check_name(model: str) -> None:
    import timm

    known = timm.list_pretrained() if '.' in model else timm.list_models()
    if ':' not in model and model not in known:
        near = difflib.get_close_matches(model, known, n=4, cutoff=0.4)
        raise ValueError(
            f'timm has no model {model!r}. Choose one of timm.list_models() or, with a '
            'tag, of timm.list_pretrained()'
            + (f'; near it: {", ".join(near)}.' if near else '.')
        )


def _no_download(model: str, error: Exception) -> str:
    return (
        f'The weights of {model} cannot be had from the hub ({error}). On a machine '
        'with network, fetch its model.safetensors and give the path of the file: '
        "pretrained='/path/to/model.safetensors'."
    )
