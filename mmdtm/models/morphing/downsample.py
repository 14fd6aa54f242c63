"""Grid pooling as morphing."""

import math

from mmpretrain.registry import MODELS
from torch import Tensor

from mmdtm.morphing import Draw, TokenAssignment, downsample

from .base import BaseMorphing


@MODELS.register_module()
class DownsampleMorphing(BaseMorphing):
    """Merge the tokens of each window of the grid (table 2, downsampling).

    Args:
        stride: height and width of a window in tokens, or one int for both.
        grid_size: (h, w) of the token grid; None for a square one.

    Raises:
        ValueError: at the first forward pass, if the stride does not divide
            the grid, or the grid does not have as many tokens as there are.
    """

    def __init__(
        self,
        stride: int | tuple[int, int] = 2,
        grid_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(levels=1)
        self.stride = stride
        self.grid_size = grid_size

    def assign(self, tokens: Tensor, draw: Draw) -> TokenAssignment:
        """See `BaseMorphing.assign`."""
        batch_size, num_tokens, _ = tokens.shape
        side = math.isqrt(num_tokens)
        height, width = self.grid_size or (side, side)
        if height * width != num_tokens:
            raise ValueError(
                f'{num_tokens} tokens do not fill a grid of {height} x {width}; '
                'give DownsampleMorphing the grid_size=(h, w) of the teacher'
            )
        return downsample((height, width), self.stride, batch_size, tokens.device)
