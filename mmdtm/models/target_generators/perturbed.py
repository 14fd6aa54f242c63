"""A teacher whose tokens disagree in space by a known amount."""

from __future__ import annotations

import hashlib

import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS
from torch import Tensor

from mmdtm.models.target_generators.base import TargetGenerator
from mmdtm.models.target_generators.frozen import Tower
from mmdtm.morphing.checks import check_option

KINDS = ('independent', 'correlated', 'swapped')
RADIUS = 2  # of the window, in patches, over which correlated noise is averaged


def image_keys(images: Tensor, seed: int = 0) -> list[int]:
    """A number for each image that its pixels alone decide.

    Args:
        images: Float (B, 3, H, W); a difference below 1/64 hardly ever shows.
        seed: Another one gives other numbers.

    Returns:
        B numbers of 63 bits.
    """
    pixels = (images * 32).round().to('cpu', torch.int16).numpy()
    salt = seed.to_bytes(8, 'little')
    digests = [
        hashlib.blake2b(image.tobytes(), digest_size=8, salt=salt).digest()
        for image in pixels
    ]
    return [int.from_bytes(digest, 'little') >> 1 for digest in digests]


def noise_like(
    tokens: Tensor, grid: tuple[int, int], keys: list[int], radius: int
) -> Tensor:
    """Noise of unit variance for each image's tokens, decided by its key.

    Args:
        tokens: (B, N, D), N = h * w.
        grid: h, w.
        keys: See :func:`image_keys`.
        radius: Each token's noise is the scaled mean of independent noise over the
            (2 radius + 1)^2 positions around it; 0 leaves it independent.

    Returns:
        float32 (B, N, D), where the tokens are.
    """
    batch, _, dims = tokens.shape
    height, width = grid[0] + 2 * radius, grid[1] + 2 * radius
    drawn = torch.stack(
        [
            torch.randn(
                dims, height, width, generator=torch.Generator().manual_seed(key)
            )
            for key in keys
        ]
    ).to(tokens.device)
    side = 2 * radius + 1
    drawn = F.avg_pool2d(drawn, side, stride=1) * side
    return drawn.reshape(batch, dims, -1).transpose(1, 2)


def swap(tokens: Tensor, share: float, keys: list[int]) -> Tensor:
    """Give a share of the positions, drawn by the keys, one another's tokens.

    Args:
        tokens: (B, N, D).
        share: Of the N positions, 0 to 1; each of them gets another's token.
        keys: See :func:`image_keys`.

    Returns:
        (B, N, D).
    """
    num_tokens = tokens.shape[1]
    count = round(share * num_tokens)
    index = torch.arange(num_tokens).repeat(len(keys), 1)
    for row, key in zip(index, keys, strict=True):
        order = torch.randperm(num_tokens, generator=torch.Generator().manual_seed(key))
        row[order[:count]] = order[:count].roll(1)
    index = index.to(tokens.device)
    return tokens.gather(1, index[..., None].expand_as(tokens))


@MODELS.register_module()
class PerturbedGenerator(TargetGenerator):
    """Another teacher, whose tokens are made inconsistent by a known amount.

    For controlled studies: the paper holds that morphing helps because a
    teacher's tokens disagree in space (section 3), and here that is known. What
    is done to the tokens is a function of the image, as the network sees it,
    and of the position: the same crop is always perturbed alike.

    Args:
        teacher: The config of the other teacher.
        kind: 'independent': noise of its own is added to each token;
            'correlated': noise that neighbours share, averaged over 5 x 5
            positions; 'swapped': positions exchange their tokens.
        strength: Of added noise, its length as a multiple of the token's own; of
            'swapped', the share of positions that exchange. 0 changes nothing.
        seed: Of the noise.

    Raises:
        ValueError: If ``kind`` or ``strength`` is not as above, or the teacher
            groups its tokens itself.
    """

    def __init__(
        self,
        teacher: dict,
        kind: str = 'independent',
        strength: float = 0.0,
        seed: int = 0,
    ) -> None:
        check_option(kind, KINDS, 'kind')
        if not 0 <= strength <= (1 if kind == 'swapped' else float('inf')):
            raise ValueError(
                f'strength is {strength}. Choose 0 or more, and at most 1 where kind '
                "is 'swapped'."
            )
        inner = MODELS.build(teacher)
        if type(inner).targets is not TargetGenerator.targets:
            raise ValueError(
                f'{type(inner).__name__} groups its tokens itself, by what they are '
                'before any perturbation. Perturb a teacher that gives tokens alone.'
            )
        tower = Tower(
            inner.teacher,
            inner.patch_size,
            inner.input_size,
            inner.mean,
            inner.std,
            inner.out_channels,
        )
        super().__init__(lambda _: tower, inner, dtype=inner.dtype)
        self.inner = inner
        self.kind, self.strength, self.seed = kind, strength, seed

    def extract_tokens(self, images: Tensor) -> Tensor:
        tokens = self.inner.extract_tokens(images)
        return self.perturb(tokens, image_keys(images, self.seed))

    def perturb(self, tokens: Tensor, keys: list[int]) -> Tensor:
        """Perturb tokens (B, N, D) on the teacher's grid, by keys of the images."""
        if self.kind == 'swapped':
            return swap(tokens, self.strength, keys)
        radius = RADIUS if self.kind == 'correlated' else 0
        noise = noise_like(tokens, self.grid_size, keys, radius)
        tokens = tokens.float()
        lengths = tokens.norm(dim=-1, keepdim=True) / tokens.shape[-1] ** 0.5
        return tokens + self.strength * lengths * noise

    def resize_teacher(self, input_size: tuple[int, int]) -> None:
        self.inner.resize_teacher(input_size)
        self.inner.input_size = input_size

    def extra_repr(self) -> str:
        """The perturbation, after what every teacher says."""
        return f'{super().extra_repr()}, {self.kind} {self.strength}'
