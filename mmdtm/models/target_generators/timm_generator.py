"""Patch tokens of any network of timm that keeps a grid of them, as targets."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from mmpretrain.registry import MODELS
from torch import Tensor, nn
from torch.func import functional_call

from mmdtm.models.target_generators.base import TargetGenerator
from mmdtm.models.target_generators.frozen import Tower
from mmdtm.models.timm_models import create_timm, require_timm


class TimmTeacher(TargetGenerator):
    """A teacher whose network is one of timm's; the base of those below."""

    def extract_tokens(self, images: Tensor) -> Tensor:
        return patch_tokens(self.teacher, images)

    def resize_teacher(self, input_size: tuple[int, int]) -> None:
        resize_network(self.teacher, input_size)


@MODELS.register_module()
class TimmGenerator(TimmTeacher):
    """All patch tokens of a network of timm, after its final norm.

    For DINOv2, DINOv3, SigLIP, EVA, PE, SAM, DeiT III and the like; hybrids, CNNs and
    hierarchical networks have a token for each position of their last stage. Class and
    register tokens are left out, and so is any head, attention pooling with it. Mean,
    std and input size are those that timm records for the weights. docs/teachers.md has
    a table of kinds.

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
        ValueError: If the model is unknown or has no patch grid, or the
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

    @classmethod
    def require_weights(cls, options: Mapping[str, Any]) -> None:
        if not options.get('random_weights'):
            require_timm(options['model'], options.get('pretrained', True))


def patch_tokens(network: Any, images: Tensor) -> Tensor:
    """Pass each patch through a network's own head, as if it were the whole image.

    A patch alone is what the head pools, by class token, mean or attention alike; what
    follows is the head's norm and projection, if it has them.

    Args:
        network: Of timm.
        images: (B, 3, H, W).

    Returns:
        (B, N, D), row-major.

    Raises:
        ValueError: If the network has no patch grid.
    """
    features = network.forward_features(images)
    prefix = getattr(network, 'num_prefix_tokens', None)
    shape = getattr(features, 'shape', ())
    if len(shape) == 3 and prefix is not None:
        tokens = features[:, prefix:]
        alone = tokens.flatten(0, 1)[:, None].expand(-1, prefix + 1, -1)
    elif len(shape) == 4 and getattr(network, 'output_fmt', 'NCHW') == 'NHWC':
        tokens = features.flatten(1, 2)
        alone = tokens.flatten(0, 1)[:, None, None]
    elif len(shape) == 4:
        tokens = features.flatten(2).transpose(1, 2)
        alone = tokens.flatten(0, 1)[:, :, None, None]
    else:
        raise _no_grid(network)
    return pool_alone(network.forward_head, alone).unflatten(0, tokens.shape[:2])


def pool_alone(head: Callable[[Tensor], Tensor], patches: Tensor) -> Tensor:
    """Pool patches as if each were an image, (B * N, ...) to (B * N, D).

    CUDA's attention kernels take up to 65,535 images, a large batch has more patches.
    """
    return torch.cat([head(part) for part in patches.split(2**15)])


def resize_network(network: Any, input_size: tuple[int, int]) -> None:
    """Let a network of timm take images of another size.

    Raises:
        ValueError: If it cannot.
    """
    owner = network
    if not hasattr(network, 'set_input_size'):  # SAM's interpolates as it runs
        owner = getattr(network, 'patch_embed', None)
    try:
        if hasattr(owner, 'set_input_size'):
            owner.set_input_size(img_size=input_size)
        measure(network, input_size)
    except Exception as error:  # each network fails in its own way
        raise ValueError(
            f'{type(network).__name__} takes images of one size alone'
        ) from error


def measure(network: Any, input_size: tuple[int, int]) -> tuple[tuple[int, int], int]:
    """Find what the tokens of a network of timm are like, without computing any.

    Args:
        network: The network.
        input_size: Height and width of its images.

    Returns:
        Height and width of a patch in pixels, and the width of a token.

    Raises:
        ValueError: If the network has no patch grid.
    """
    stages = getattr(network, 'feature_info', None)
    if not stages:
        raise _no_grid(network)
    stride = stages[-1]['reduction']
    tokens = _PatchTokens(network.eval())
    state = itertools.chain(tokens.named_parameters(), tokens.named_buffers())
    on_meta = {name: value.to('meta') for name, value in state}
    images = torch.zeros(1, 3, *input_size, device='meta')
    _, count, width = functional_call(tokens, on_meta, images).shape
    if count != (input_size[0] // stride) * (input_size[1] // stride):
        raise _no_grid(network)
    return (stride, stride), width


class _PatchTokens(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return patch_tokens(self.network, images)


def _no_grid(network: nn.Module) -> ValueError:
    return ValueError(
        f'{type(network).__name__} has no patch grid: its final features are not one '
        'token for each patch of the image, in rows. Choose a teacher that has one, '
        'such as vit_base_patch14_dinov2.'
    )


def _build(model: str, pretrained: bool | str | None) -> Tower:
    network = create_timm(model, pretrained or False)
    if getattr(network, 'attn_pool', None) is not None:  # a head, which is left out
        network.attn_pool, network.global_pool = None, 'avg'
    config = network.pretrained_cfg
    input_size = tuple(config['input_size'][1:])
    patch_size, width = measure(network, input_size)
    return Tower(
        network,
        patch_size=patch_size,
        input_size=input_size,
        mean=[255 * value for value in config['mean']],
        std=[255 * value for value in config['std']],
        out_channels=width,
    )
