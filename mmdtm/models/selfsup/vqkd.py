"""The codes of BEiT v2's tokenizer as targets (table 3)."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from mmpretrain.models.selfsup import VQKD
from mmpretrain.registry import MODELS
from torch import Tensor

from mmdtm.io.weights import check_weights, read_weights
from mmdtm.models.target_generators.frozen import FrozenTower, Tower

# What turns an image into codes; a file may hold the decoder and counters, too.
NEEDED = ('encoder.', 'encode_task_layer.', 'quantize.embedding.weight')


@MODELS.register_module()
class VQKDGenerator(FrozenTower):
    """mmpretrain's VQ-KD tokenizer, frozen as every teacher here.

    mmpretrain itself leaves it trainable, in training mode, where its codebook
    moves, and in the checkpoint.

    Args:
        checkpoint: mmpretrain's ``vqkd_encoder.pth``, or any file of plain weights in
            its key names.
        arch: The encoder's, as BEiTViT takes it.
        img_size: Side of its images in pixels.
        num_embed: Number of codes.
        embed_dims: Width of a code.
        **kwargs: ``mean``, ``std``, ``dtype`` and ``random_weights``; see
            :class:`FrozenTower`. The tokenizer was trained on pixels from -1
            to 1.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If it is not one of this tokenizer, or not plain weights.
    """

    smoke: ClassVar[dict] = dict(
        checkpoint=None,
        arch=dict(embed_dims=48, num_layers=4, num_heads=3, feedforward_channels=96),
        img_size=64,
        random_weights=True,
    )

    def __init__(
        self,
        checkpoint: str | None = None,
        arch: str | dict = 'base',
        img_size: int = 224,
        num_embed: int = 8192,
        embed_dims: int = 32,
        **kwargs,
    ) -> None:
        build = partial(_build, arch, img_size, num_embed, embed_dims)
        super().__init__(build, checkpoint, **kwargs)

    def codes(self, images: Tensor) -> Tensor:
        """The nearest code of each patch, int64 (B, N), at the input size."""
        features = self.teacher.encoder(images)[0].flatten(2).transpose(1, 2)
        with torch.autocast(images.device.type, enabled=False):
            features = self.teacher.encode_task_layer(features.float())
            features = F.normalize(features, dim=-1)
            codebook = self.teacher.quantize.embedding.weight
            # |z - e|^2 = |z|^2 - 2 (z e - |e|^2 / 2)
            closeness = features @ codebook.T - codebook.square().sum(1) / 2
        return closeness.argmax(dim=-1)

    def forward(self, images: Tensor) -> Tensor:
        """The codes of all patches.

        Args:
            images: See :meth:`FrozenTower.run`.

        Returns:
            int64 (B, N), each in [0, num_embed); row-major.
        """
        return self.run(self.codes, images)


def _build(
    arch: str | dict,
    img_size: int,
    num_embed: int,
    embed_dims: int,
    checkpoint: str | None,
) -> Tower:
    network = VQKD(
        encoder_config=dict(
            arch=arch,
            img_size=img_size,
            out_type='featmap',
            final_norm=True,
            use_abs_pos_emb=True,
            use_rel_pos_bias=False,
            layer_scale_init_value=0.0,
        ),
        num_embed=num_embed,
        embed_dims=embed_dims,
        quantize_kmeans_init=False,
    )
    if checkpoint is not None:
        _load(network, checkpoint)
    return Tower(network, (16, 16), (img_size, img_size), [127.5] * 3, [127.5] * 3)


def _load(network: VQKD, checkpoint: str) -> None:
    weights, _ = read_weights(checkpoint)
    own = network.state_dict()
    found = {name: weights[name] for name in weights if name.startswith(NEEDED)}
    expected = {name: own[name] for name in own if name.startswith(NEEDED)}
    check_weights(checkpoint, expected, found, "mmpretrain's VQKD tokenizer")
    network.load_state_dict(found, strict=False)  # the rest are counters
