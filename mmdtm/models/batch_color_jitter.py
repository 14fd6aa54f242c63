"""Colour jitter of a whole batch, on the device where it is."""

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import rgb_to_grayscale

from mmdtm.morphing.draw import without_waiting


class BatchColorJitter:
    """torchvision's ``ColorJitter``, drawn for each image, computed for all at once.

    torchvision itself jitters a batch by one draw, or an image at a time by dozens of
    small kernels.

    Args:
        **options: ``brightness``, ``contrast`` and ``saturation`` of torchvision's v2
            ``ColorJitter``: the distance of a factor from 1, or its (lowest, highest).

    Raises:
        ValueError: If a range is wrong, or there is a ``hue``.
    """

    def __init__(self, **options) -> None:
        if options.pop('hue', None):
            raise ValueError(
                'BatchColorJitter changes no hue. Leave hue out, or jitter in the '
                'pipeline by JitteredResizedCrop.'
            )
        jitter = v2.ColorJitter(**options)
        limits = (jitter.brightness, jitter.contrast, jitter.saturation)
        self.limits = torch.tensor([(1.0, 1.0) if x is None else x for x in limits])

    def __call__(self, images: Tensor) -> Tensor:
        """Jitter float RGB images (B, 3, H, W), 0 to 255, by the CPU's generator."""
        shape = 3, len(images)
        order = torch.rand(shape).argsort(0)
        low, high = self.limits.split(1, dim=1)
        factors = low + (high - low) * torch.rand(shape)
        drawn = torch.stack([order.float(), factors])  # to travel as one
        order, factors = without_waiting(drawn, images.device)
        return jitter(images, order, factors)


def jitter(images: Tensor, order: Tensor, factors: Tensor) -> Tensor:
    """Adjust brightness, contrast and saturation, in an order of each image's own.

    All three blend an image with another: with black, with its mean grey or with its
    grey image. Nothing is rounded between them.

    Args:
        images: Float RGB (B, 3, H, W), 0 to 255.
        order: (3, B): which is an image's first, second and third, of 0, brightness, 1,
            contrast, and 2, saturation.
        factors: (3, B), of the three; 1 changes nothing.

    Returns:
        The same shape, 0 to 255.
    """
    for turn in order:
        factor = factors.gather(0, turn.long()[None]).view(-1, 1, 1, 1)
        turn = turn.view(-1, 1, 1, 1)
        grey = rgb_to_grayscale(images)
        mean = grey.mean((2, 3), keepdim=True)
        other = torch.where(turn == 2, grey, mean * (turn == 1))
        images = (factor * images + (1 - factor) * other).clamp(0, 255)
    return images
