"""Block-wise masking."""

import math
from typing import ClassVar

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.utils import to_2tuple
from mmpretrain.registry import TRANSFORMS

from mmdtm.morphing.checks import check_count

TRIES = 10  # of a block, until single patches fill up


@TRANSFORMS.register_module()
class BlockMaskGenerator(BaseTransform):
    """Mask blocks of patches, exactly floor(r * N) of them in every draw.

    Blocks of random area and aspect ratio are laid on the patch grid, over one
    another if need be, until the count is reached; the last one is cut to fit,
    from its lower end. Paper, sections 4.1 and 5: block-wise, r = 0.4, which is
    78 of 14 x 14 patches.

    Adds the key ``mask``: (h, w) bool, True = masked.

    Args:
        input_size: Patches per side h = w, or (h, w).
        mask_ratio: Share r of patches to mask, 0 < r < 1.
        min_num_patches: Smallest area of a block, in patches; the largest is
            what is left to mask.
        min_aspect: Smallest aspect ratio (height / width) of a block, at most
            1; the largest is 1 / min_aspect.
        whole_blocks: Cut no block, as BEiT v2 and the authors' release: one that
            does not fit, or adds more than what is left, is drawn anew, and
            after ten in a row single patches fill up.

    Raises:
        ValueError: If an argument is out of its range.
    """

    smoke: ClassVar[dict] = dict(
        # Patches of 32 pixels for backbones that end there, of 16 for all others.
        input_size=lambda grid: [2 if n <= 7 else 4 for n in to_2tuple(grid)],
        min_num_patches=1,
    )

    def __init__(
        self,
        input_size: int | tuple[int, int],
        mask_ratio: float = 0.4,
        min_num_patches: int = 16,
        min_aspect: float = 0.3,
        whole_blocks: bool = False,
    ) -> None:
        grid = (input_size,) * 2 if isinstance(input_size, int) else tuple(input_size)
        if len(grid) != 2 or min(grid) < 1:
            raise ValueError(
                f'BlockMaskGenerator: input_size is {input_size}. Give the number of '
                'patches per side, a positive int or a pair.'
            )
        if not 0 < mask_ratio < 1:
            raise ValueError(
                f'BlockMaskGenerator: mask_ratio is {mask_ratio}. Give the share of '
                'patches to mask, strictly between 0 and 1.'
            )
        self.height, self.width = grid
        # The tiny term keeps 0.3 * 10 = 2.9999999999999996 from losing a patch.
        self.num_masked = math.floor(mask_ratio * self.height * self.width + 1e-9)
        if self.num_masked == 0:
            raise ValueError(
                f'BlockMaskGenerator: mask_ratio {mask_ratio} of {self.height} x '
                f'{self.width} patches masks none. Raise it.'
            )
        check_count(min_num_patches, 1, None, 'min_num_patches')
        if not 0 < min_aspect <= 1:
            raise ValueError(
                f'BlockMaskGenerator: min_aspect is {min_aspect}. Give the aspect '
                'ratio of the flattest block, above 0 and at most 1.'
            )
        self.mask_ratio = mask_ratio
        self.min_num_patches = min_num_patches
        self.whole_blocks = whole_blocks
        self.log_aspect = (math.log(min_aspect), math.log(1 / min_aspect))

    def draw(self) -> np.ndarray:
        """Draw one mask from numpy's global generator.

        Returns:
            (h, w) bool with exactly ``num_masked`` True.
        """
        mask = np.zeros((self.height, self.width), dtype=bool)
        left = self.num_masked
        while left:
            rows, columns = (self._whole if self.whole_blocks else self._cut)(
                mask, left
            )
            mask[rows, columns] = True
            left -= len(rows)
        return mask

    def _cut(self, mask: np.ndarray, left: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns that the next block masks, at most ``left``."""
        height, width = self._draw_sides(min(self.min_num_patches, left), left)
        height = min(max(height, 1), self.height)
        width = min(max(width, 1), self.width)
        rows, columns = self._place(mask, height, width)
        return rows[:left], columns[:left]

    def _whole(self, mask: np.ndarray, left: int) -> tuple[np.ndarray, np.ndarray]:
        """Those of a block that fits, or of ``left`` single patches."""
        for _ in range(TRIES):
            height, width = self._draw_sides(self.min_num_patches, left)
            if height < self.height and width < self.width:
                rows, columns = self._place(mask, height, width)
                if 0 < len(rows) <= left:
                    return rows, columns
        rows, columns = np.nonzero(~mask)
        chosen = np.random.choice(len(rows), left, replace=False)
        return rows[chosen], columns[chosen]

    def _draw_sides(self, smallest: int, largest: int) -> tuple[int, int]:
        """Height and width of a block of about so many patches."""
        area = np.random.uniform(smallest, largest)
        aspect = math.exp(np.random.uniform(*self.log_aspect))
        return round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))

    def _place(
        self, mask: np.ndarray, height: int, width: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of what is not masked yet in a block put somewhere."""
        top = np.random.randint(0, self.height - height + 1)
        begin = np.random.randint(0, self.width - width + 1)
        rows, columns = np.nonzero(~mask[top : top + height, begin : begin + width])
        return top + rows, begin + columns

    def transform(self, results: dict) -> dict:
        """Add ``mask`` to the sample."""
        results['mask'] = self.draw()
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(grid={self.height}x{self.width}, '
            f'mask_ratio={self.mask_ratio}, num_masked={self.num_masked})'
        )
