"""Colour jitter and crop in one, so that only the crop's pixels are jittered."""

from typing import ClassVar

import cv2
import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmpretrain.datasets.transforms import ColorJitter, RandomResizedCrop
from mmpretrain.registry import TRANSFORMS

LEVELS = np.arange(256, dtype=np.uint8)


@TRANSFORMS.register_module()
class JitteredResizedCrop(BaseTransform):
    """``ColorJitter``, then ``RandomResizedCrop``, at a third of their time.

    The pixels, and the random numbers drawn, are those of mmpretrain's two
    transforms one after the other (``backend='cv2'`` of the jitter). But the
    image is cropped first: brightness, saturation and hue change each pixel by
    itself. Contrast alone needs more than the crop, the whole image's mean grey
    at its turn, for which the whole image goes through what comes before it.
    Brightness and contrast are tables of 256 entries.

    Required keys: ``img`` (H, W, 3) uint8, BGR. Changed keys: ``img``, ``img_shape``.

    Args:
        color_jitter: Options of ``ColorJitter`` other than its backend.
        grey_stride: Take the mean grey from every so many rows and columns. 1 is
            exact; with 4 the values of photographs differ by 0.04 of 255 in the
            mean.
        **kwargs: Options of ``RandomResizedCrop``.

    Raises:
        ValueError: If ``grey_stride`` is not a positive int.
    """

    smoke: ClassVar[dict] = dict(scale=64)

    def __init__(self, color_jitter: dict, grey_stride: int = 1, **kwargs) -> None:
        if not isinstance(grey_stride, int) or grey_stride < 1:
            raise ValueError(
                f'JitteredResizedCrop: grey_stride is {grey_stride!r}. Give a number '
                'of rows and columns, an int of at least 1.'
            )
        self.jitter = ColorJitter(**color_jitter, backend='cv2')
        self.crop = RandomResizedCrop(**kwargs)
        self.grey_stride = grey_stride

    def transform(self, results: dict) -> dict:
        """Replace ``img`` by its jittered crop, and note its shape."""
        whole = results['img']
        order, *factors = self.jitter._rand_params()
        top, left, height, width = self.crop.rand_crop_params(whole)
        crop = _packed(whole[top : top + height, left : left + width])
        stride = self.grey_stride
        whole = whole[::stride, ::stride]
        steps = [(step, factors[step]) for step in order if factors[step] is not None]
        if self.jitter.contrast is not None:
            number = [step for step, _ in steps].index(1)
            grey = _mean_grey(_apply(_packed(whole), steps[:number]))
            steps[number] = (1, (factors[1], grey))
        image = mmcv.imresize(
            _apply(crop, steps),
            tuple(self.crop.scale[::-1]),
            interpolation=self.crop.interpolation,
            backend=self.crop.backend,
        )
        return dict(results, img=image, img_shape=image.shape)

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}({self.jitter}, {self.crop}, '
            f'grey_stride={self.grey_stride})'
        )


def _apply(image: np.ndarray, steps: list[tuple]) -> np.ndarray:
    """Jitter: (0, brightness), (1, (contrast, mean grey)), (2, saturation), (3, hue).

    Tables that follow one another become one.
    """
    table = LEVELS
    for step, factor in steps:
        if step == 0:
            table = mmcv.adjust_brightness(LEVELS, factor, backend='cv2').ravel()[table]
        elif step == 1:
            table = _contrast_table(*factor)[table]
        else:
            image, table = _look_up(image, table), LEVELS
            if step == 2:
                grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
                grey = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
                image = cv2.addWeighted(image, factor, grey, 1 - factor, 0)
            else:
                image = mmcv.adjust_hue(image, factor, backend='cv2')
    return _look_up(image, table)


def _look_up(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    return image if table is LEVELS else cv2.LUT(image, table)


def _contrast_table(factor: float, grey: int) -> np.ndarray:
    """What mmcv's ``adjust_contrast`` makes of each value beside that mean grey."""
    values = LEVELS.astype(np.float32)
    mean = np.full_like(values, grey)
    table = cv2.addWeighted(values, factor, mean, 1 - factor, 0)
    return np.clip(table, 0, 255).astype(np.uint8).ravel()


def _mean_grey(image: np.ndarray) -> int:
    """The rounded mean grey that mmcv's ``adjust_contrast`` takes."""
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    return round(cv2.sumElems(grey)[0] / grey.size)


def _packed(image: np.ndarray) -> np.ndarray:
    """The same pixels, channels in order in memory; Pillow's come as a view of RGB."""
    if image.strides[2] == -1 and image.strides[1] == image.shape[2] == 3:
        return cv2.cvtColor(image[..., ::-1], cv2.COLOR_RGB2BGR)
    return np.ascontiguousarray(image)
