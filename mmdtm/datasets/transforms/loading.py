"""Loading an image once, and noticing when it is damaged."""

from mmcv.transforms import LoadImageFromFile
from mmpretrain.registry import TRANSFORMS


class BadImageError(OSError):
    """An image file that cannot be read, or is not whole."""


@TRANSFORMS.register_module()
class LoadWholeImage(LoadImageFromFile):
    """mmcv's ``LoadImageFromFile`` that refuses truncated files.

    Some versions of OpenCV fill what is missing of a JPEG with grey and say
    nothing, so that Pillow decodes, which raises.

    Args:
        **kwargs: Of ``LoadImageFromFile``.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(imdecode_backend='pillow', **kwargs)

    def transform(self, results: dict) -> dict:
        """Read ``results['img_path']`` into ``img``: (H, W, 3) uint8, BGR.

        Raises:
            BadImageError: If the file cannot be read or decoded wholly; names it.
        """
        try:
            return super().transform(results)
        except Exception as error:  # decoders raise most kinds of errors
            raise BadImageError(
                f'{results["img_path"]} is not a whole image: {error}'
            ) from error
