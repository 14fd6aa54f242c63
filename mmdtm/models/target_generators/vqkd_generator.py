"""The codes of BEiT v2's tokenizer as targets (table 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmpretrain.models.selfsup import VQKD
from mmpretrain.registry import MODELS
from torch import Tensor

from mmdtm.models.target_generators.base import (
    TargetGenerator,
    same_weights,
    warn_of_random_weights,
)
from mmdtm.weights import check_weights, read_weights

# What turns an image into codes; a file may hold the decoder and counters, too.
NEEDED = ('encoder.', 'encode_task_layer.', 'quantize.embedding.weight')


@MODELS.register_module()
class VQKDGenerator(TargetGenerator):
    """mmpretrain's VQ-KD tokenizer, frozen as every teacher here.

    mmpretrain itself leaves it trainable, in training mode, where its codebook
    moves, and in the checkpoint.

    Args:
        checkpoint (str, optional): mmpretrain's ``vqkd_encoder.pth``, or any
            file of plain weights in its key names.
        arch (str or dict): The encoder's, as BEiTViT takes it. Defaults to
            'base'.
        img_size (int): Side of its images in pixels. Defaults to 224.
        num_embed (int): Number of codes. Defaults to 8192.
        embed_dims (int): Width of a code. Defaults to 32.
        mean (Sequence[float]): Three channel means for pixels 0-255, RGB. The
            tokenizer was trained on pixels from -1 to 1.
        std (Sequence[float]): Likewise the deviations.
        dtype (str, optional): Precision; see :class:`TargetGenerator`.
        random_weights (bool): Load no file; the codes mean nothing, and a
            warning says so. Defaults to False.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If it is none of this tokenizer, or not plain weights.
    """

    def __init__(
        self,
        checkpoint: str | None = None,
        arch: str | dict = 'base',
        img_size: int = 224,
        num_embed: int = 8192,
        embed_dims: int = 32,
        mean: Sequence[float] = (127.5, 127.5, 127.5),
        std: Sequence[float] = (127.5, 127.5, 127.5),
        dtype: str | None = None,
        random_weights: bool = False,
    ) -> None:
        if checkpoint is None and not random_weights:
            raise ValueError(
                'VQKDGenerator has no weights: give checkpoint the path of '
                "mmpretrain's vqkd_encoder.pth, or random_weights=True for codes "
                'without meaning.'
            )
        with same_weights():
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
        if random_weights:
            warn_of_random_weights('VQKD')
        else:
            _load(network, checkpoint)
        super().__init__(
            network,
            mean=mean,
            std=std,
            out_channels=1,
            patch_size=(16, 16),
            input_size=(img_size, img_size),
            dtype=dtype,
        )

    def extract_tokens(self, images: Tensor) -> Tensor:
        """The nearest code of each patch, (B, N) int64."""
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
            images (Tensor): See :class:`TargetGenerator`.

        Returns:
            Tensor: int64 (B, N), each in [0, num_embed); row-major.
        """
        return super().forward(images).long()  # below 2**24 float32 is exact


def _load(network: VQKD, checkpoint: str) -> None:
    weights, _ = read_weights(checkpoint)
    own = network.state_dict()
    found = {name: weights[name] for name in weights if name.startswith(NEEDED)}
    expected = {name: own[name] for name in own if name.startswith(NEEDED)}
    check_weights(checkpoint, expected, found, "mmpretrain's VQKD tokenizer")
    network.load_state_dict(found, strict=False)  # the rest are counters
