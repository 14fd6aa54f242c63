"""SLIP's patch tokens as targets (table 9)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar

from mmpretrain.registry import MODELS
from torch import nn

from mmdtm.io.checkpoints import shorten, under
from mmdtm.io.weights import check_weights, read_weights
from mmdtm.models.target_generators.frozen import Tower
from mmdtm.models.target_generators.timm_generator import TimmTeacher

if TYPE_CHECKING:
    from timm.models import VisionTransformer

# The image towers of the published checkpoints; the small one has MoCo v3's
# twelve heads.
ARCHS = {
    'small': dict(embed_dim=384, depth=12, num_heads=12),
    'base': dict(embed_dim=768, depth=12, num_heads=12),
    'large': dict(embed_dim=1024, depth=24, num_heads=16),
}


@MODELS.register_module()
class SLIPGenerator(TimmTeacher):
    """All patch tokens of SLIP's image tower, through its image projection.

    SLIP (Mu et al., "SLIP: Self-supervision meets Language-Image
    Pre-training", ECCV 2022) trains a ViT of timm as CLIP's image tower with a
    self-supervised loss beside. Every patch token, not only the class token,
    passes the final norm and the projection (512 wide). Its authors' CLIP
    checkpoints, trained on the same data, load as well.

    Args:
        checkpoint: The authors' file: tensors under 'state_dict', the image tower as
            ``[module.]visual.*``, the projection as ``[module.]image_projection``. Text
            tower and self-supervised head are left aside.
        arch: 'small', 'base' or 'large' (each /16, 224 pixels), or arguments of timm's
            VisionTransformer.
        **kwargs: ``mean``, ``std``, ``dtype`` and ``random_weights``; see
            :class:`FrozenTower`.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If it is not SLIP's of this architecture, or not plain
            weights, or ``arch`` is unknown.
    """

    smoke: ClassVar[dict] = dict(
        checkpoint=None,
        arch=dict(embed_dim=48, depth=4, num_heads=3, img_size=64),
        random_weights=True,
    )

    def __init__(
        self, checkpoint: str | None = None, arch: str | dict = 'base', **kwargs
    ) -> None:
        super().__init__(partial(_build, arch), checkpoint, **kwargs)


def _build(arch: str | dict, checkpoint: str | None) -> Tower:
    from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    from timm.models import VisionTransformer

    if isinstance(arch, str) and arch not in ARCHS:
        raise ValueError(
            f'SLIP has no arch {arch!r}. Choose from {", ".join(ARCHS)}, or give a '
            "dict of arguments of timm's VisionTransformer."
        )
    options = ARCHS[arch] if isinstance(arch, str) else arch
    network = VisionTransformer(num_classes=0, **options)
    network.head = nn.Linear(network.embed_dim, 512, bias=False)
    if checkpoint is not None:
        _load(network, checkpoint, arch)
    return Tower(
        network,
        patch_size=network.patch_embed.patch_size,
        input_size=network.patch_embed.img_size,
        mean=[255 * value for value in IMAGENET_DEFAULT_MEAN],
        std=[255 * value for value in IMAGENET_DEFAULT_STD],
        out_channels=network.head.out_features,
    )


def _load(network: VisionTransformer, checkpoint: str, arch: str | dict) -> None:
    weights, _ = read_weights(checkpoint)
    found = under(weights, 'visual.')
    projection = weights.get('image_projection')
    if not found or projection is None:
        raise ValueError(
            f"{checkpoint} is not one of SLIP's: it holds {shorten(weights)}. Give a "
            'file that has visual.* (such as visual.cls_token) and image_projection, '
            'with or without the prefix module.'
        )
    network.head = nn.Linear(projection.shape[0], projection.shape[1], bias=False)
    found['head.weight'] = projection.T
    check_weights(checkpoint, network.state_dict(), found, f'SLIP {arch}')
    network.load_state_dict(found)
