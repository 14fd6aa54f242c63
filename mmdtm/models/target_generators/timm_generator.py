"""Patch tokens of any Vision Transformer of timm as targets."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

from mmpretrain.registry import MODELS
from torch import Tensor, nn

from mmdtm.io.weights import read_weights
from mmdtm.models.target_generators.base import TargetGenerator
from mmdtm.models.target_generators.frozen import Tower


class TimmTeacher(TargetGenerator):
    """A teacher whose network is a ViT of timm; the base of those below."""

    def extract_tokens(self, images: Tensor) -> Tensor:
        """Patch tokens after the final norm; see the base class."""
        network = self.teacher
        tokens = network.forward_features(images)
        prefix, (rows, columns) = network.num_prefix_tokens, self.grid_size
        if tokens.ndim != 3 or tokens.shape[1] != prefix + rows * columns:
            raise ValueError(
                f'{type(network).__name__} gives features of shape '
                f'{tuple(tokens.shape)}, not a token for each of {rows}x{columns} '
                'patches. Choose a plain ViT.'
            )
        tokens = tokens[:, prefix:]
        # Networks that pool by the mean keep their final norm for what they pool.
        if isinstance(network.norm, nn.Identity) and hasattr(network, 'fc_norm'):
            tokens = network.fc_norm(tokens)
        return tokens

    def resize_teacher(self, input_size: tuple[int, int]) -> None:
        if not hasattr(self.teacher, 'set_input_size'):
            raise ValueError(
                f'{type(self.teacher).__name__} takes images of '
                f'{self.input_size[0]}x{self.input_size[1]} alone'
            )
        self.teacher.set_input_size(img_size=input_size)


@MODELS.register_module()
class TimmGenerator(TimmTeacher):
    """All patch tokens of a ViT of timm, after its final norm.

    For DINOv2, DINOv3, SigLIP, EVA, DeiT III and the like. Class and register
    tokens are left out, and so is any head. Mean, std and input size are those
    that timm records for the weights.

    Args:
        model: timm's name, with or without a tag, as 'vit_base_patch14_dinov2.lvd142m'.
        pretrained: True takes timm's weights from the hub or its cache, a path those of
            a local file, in timm's key names or any that timm converts. False is
            ``random_weights=True``.
        random_weights: Load no weights, whatever ``pretrained`` says.
        **kwargs: ``mean``, ``std`` and ``dtype``; see :class:`FrozenTower`.

    Raises:
        FileNotFoundError: If the file is missing or the weights cannot be
            downloaded.
        ValueError: If the model is unknown or has no patch tokens, or the
            file is not of this model or not plain weights.
    """

    smoke: ClassVar[dict] = dict(model='test_vit', random_weights=True)

    def __init__(
        self,
        model: str,
        pretrained: bool | str = True,
        random_weights: bool = False,
        **kwargs,
    ) -> None:
        random_weights = random_weights or pretrained is False
        super().__init__(
            partial(_build, model), pretrained, random_weights=random_weights, **kwargs
        )


def timm_tower(
    network: Any, mean: Sequence[float], std: Sequence[float], out_channels: int
) -> Tower:
    """Describe a ViT of timm.

    Args:
        network: The ViT.
        mean: Three channel means, RGB, for pixels 0-1.
        std: Likewise the deviations.
        out_channels: D.

    Raises:
        ValueError: If the network has no grid of patch tokens.
    """
    patches: Any = getattr(network, 'patch_embed', None)
    if (
        getattr(network, 'num_prefix_tokens', None) is None
        or getattr(patches, 'grid_size', None) is None
    ):
        raise ValueError(
            f'{type(network).__name__} has no fixed grid of patch tokens (a CNN or a '
            'ViT that merges patches has none). Choose a plain ViT, such as '
            'vit_base_patch14_dinov2.'
        )
    return Tower(
        network,
        patch_size=patches.patch_size,
        input_size=patches.img_size,
        mean=[255 * value for value in mean],
        std=[255 * value for value in std],
        out_channels=out_channels,
    )


def _build(model: str, pretrained: bool | str | None) -> Tower:
    network = _create(model, pretrained or False)
    config = network.pretrained_cfg
    return timm_tower(network, config['mean'], config['std'], network.num_features)


def _create(model: str, pretrained: bool | str) -> Any:
    import timm  # when a teacher is built, for it takes a second

    name = model.split('.')[0]
    if ':' not in model and not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=4, cutoff=0.4)
        raise ValueError(
            f'timm has no model {model!r}. '
            + (f'Near it: {", ".join(near)}. ' if near else '')
            + 'timm.list_models() names all.'
        )
    if not isinstance(pretrained, str):
        try:
            return timm.create_model(model, pretrained=pretrained, num_classes=0)
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
        network: Any = timm.create_model(
            model,
            pretrained=True,
            pretrained_cfg_overlay=dict(
                state_dict=weights, num_classes=0, label_offset=0
            ),
            num_classes=0,
        )
    except Exception as error:  # the converters of timm fail in their own ways
        raise ValueError(
            f"{pretrained} does not hold timm's {model}: {error}"
        ) from error
    network.pretrained_cfg.pop('state_dict', None)  # or it stays in memory
    return network
