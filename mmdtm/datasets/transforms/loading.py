"""Loading an image once, and noticing when it is damaged."""

import os
import stat
from contextlib import suppress

from mmcv.transforms import LoadImageFromFile
from mmpretrain.registry import TRANSFORMS
from PIL import Image, UnidentifiedImageError

MAX_PIXELS = 2**26  # above ImageNet's largest


class BadImageError(OSError):
    """An image file that cannot be read, is not whole, or is too large."""


@TRANSFORMS.register_module()
class LoadWholeImage(LoadImageFromFile):
    """mmcv's ``LoadImageFromFile`` that refuses what would harm a training.

    - Truncated files: some versions of OpenCV fill what is missing of a JPEG with
      grey and say nothing; Pillow, the default here, raises.
    - What is not a regular file, such as a pipe or a device, whose end may never
      come.
    - Images of very many pixels, before they are decoded: a small file can declare
      more than the memory holds.

    Args:
        max_pixels: Width times height of the largest image; None for any that the
            decoder takes.
        **kwargs: Of ``LoadImageFromFile``; ``imdecode_backend`` is 'pillow' here.
    """

    def __init__(self, max_pixels: int | None = MAX_PIXELS, **kwargs) -> None:
        super().__init__(**{'imdecode_backend': 'pillow', **kwargs})
        self.max_pixels = max_pixels

    def transform(self, results: dict) -> dict:
        """Read ``results['img_path']`` into ``img``: (H, W, 3) uint8, BGR.

        An image that is there already, as mmpretrain's inferencers bring it, stays.

        Raises:
            BadImageError: If the file is refused, or cannot be read or decoded
                wholly; names it.
        """
        if 'img' in results:
            return results
        path = results['img_path']
        try:
            self._check(path)
            return super().transform(results)
        except BadImageError:
            raise
        except Exception as error:  # decoders raise most kinds of errors
            raise BadImageError(f'{path} is not a whole image: {error}') from error

    def _check(self, path: str) -> None:
        try:
            mode = os.stat(path).st_mode
        except OSError:
            return  # what opens it knows better; it may be on another storage
        if not stat.S_ISREG(mode):
            raise BadImageError(f'{path} is not a regular file')
        if self.max_pixels is None:
            return
        with suppress(UnidentifiedImageError), Image.open(path) as header:
            pixels = header.width * header.height
            if pixels > self.max_pixels:
                raise BadImageError(
                    f'{path} has {header.width} x {header.height} pixels, more than '
                    f'max_pixels={self.max_pixels} of LoadWholeImage'
                )
