"""Networks of timm by their names, with their weights."""

import difflib
from typing import Any

from mmdtm.io.weights import read_weights


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

    known = timm.list_pretrained() if '.' in model else timm.list_models()
    if ':' not in model and model not in known:
        near = difflib.get_close_matches(model, known, n=4, cutoff=0.4)
        raise ValueError(
            f'timm has no model {model!r}. Choose one of timm.list_models() or, with a '
            'tag, of timm.list_pretrained()'
            + (f'; near it: {", ".join(near)}.' if near else '.')
        )
    options['num_classes'] = 0
    if not isinstance(pretrained, str):
        try:
            return timm.create_model(model, pretrained=pretrained, **options)
        except Exception as error:  # every network library raises its own
            if not pretrained:
                raise
            raise FileNotFoundError(
                f'The weights of {model} cannot be had from the hub ({error}). On a '
                'machine with network, fetch its model.safetensors and give the path '
                "of the file: pretrained='/path/to/model.safetensors'."
            ) from error
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
