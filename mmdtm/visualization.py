"""Drawing on patch grids: groups of tokens, block masks, right and wrong patches.

All images are uint8 RGB arrays (H, W, 3), and functions return new ones, or figures
that show several. An image to draw a grid of (h, w) cells on has H and W that are
multiples of h and w: ``fit_to_grid`` brings a photograph to such a size first.
"""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import torch
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from mmdtm.io import atomic_write
from mmdtm.morphing import TokenAssignment
from mmdtm.morphing.checks import check_option

# Okabe and Ito's colours, which stay apart for colour-blind readers; without
# black and yellow, which are grid and paper here.
LINE_COLORS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#E69F00')
# A style sheet for matplotlib's curves.
PLOT_STYLE = {
    'axes.axisbelow': True,
    'axes.grid': True,
    'axes.spines.right': False,
    'axes.spines.top': False,
    'figure.constrained_layout.use': True,
    'grid.color': '0.9',
    'legend.frameon': False,
}

# Figure 2's colours as v1 words them: one green for right patches; wrong ones from a
# light to a dark red.
RIGHT = (0, 140, 60)
WRONG = ((255, 186, 172), (112, 0, 16))
FILLS = ('palette', 'mean')  # of groups
_PAPER, _INK = (255, 255, 255), (24, 24, 24)


def denormalize(
    images: torch.Tensor, mean: Sequence[float], std: Sequence[float]
) -> np.ndarray:
    """Undo a preprocessor's normalisation.

    Args:
        images: (B, 3, H, W), any float dtype and device, RGB.
        mean: Subtracted means, on the 0-255 scale.
        std: Divisors, on the 0-255 scale.

    Returns:
        uint8 (B, H, W, 3).
    """
    images = images.detach().float().cpu().permute(0, 2, 3, 1)
    images = images * torch.tensor(std) + torch.tensor(mean)
    return images.round().clamp(0, 255).to(torch.uint8).numpy()


def fit_to_grid(
    image: np.ndarray, grid: tuple[int, int], side: int = 336
) -> np.ndarray:
    """Resize an image so that every cell of a grid has the same whole size.

    Args:
        image: Of any size.
        grid: Rows and columns (h, w).
        side: About how many pixels the longer side is to have.

    Returns:
        (h * c, w * c, 3) with square cells of c = side / max(h, w) pixels,
        rounded, at least 2.
    """
    cell = max(2, round(side / max(grid)))
    size = (grid[1] * cell, grid[0] * cell)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def paint_cells(
    image: np.ndarray, colors: np.ndarray, opacity: float | np.ndarray = 0.6
) -> np.ndarray:
    """Lay a colour over each cell.

    Args:
        image: What lies below.
        colors: (h, w, 3) on the 0-255 scale.
        opacity: One number in [0, 1], or (h, w) of them.

    Raises:
        ValueError: If the grid does not divide the image.
    """
    colors = np.asarray(colors, np.float64)
    opacity = np.broadcast_to(np.asarray(opacity, np.float64), colors.shape[:2])
    blend = _to_pixels(opacity[..., None], image)
    mixed = (1 - blend) * image + blend * _to_pixels(colors, image)
    return mixed.round().clip(0, 255).astype(np.uint8)


def outline(
    image: np.ndarray,
    labels: np.ndarray,
    color: Sequence[int],
    width: int = 1,
    only: Sequence[int] | None = None,
) -> np.ndarray:
    """Draw the borders between cells of different labels.

    Args:
        image: What to draw on.
        labels: int (h, w).
        color: RGB, 0-255.
        width: Pixels of the line, which lies inside the cells on both sides.
        only: Draw around these labels, inside them, the picture's rim included; None
            draws every border inside the picture.
    """
    pixels = _to_pixels(np.asarray(labels)[..., None], image)[..., 0]
    # Beyond the picture the labels go on, or are foreign ones.
    beyond = dict(mode='nearest')
    if only is not None:
        beyond = dict(mode='constant', cval=pixels.min() - 1)
    size = 2 * width + 1
    highest = ndimage.maximum_filter(pixels, size, **beyond)
    border = highest != ndimage.minimum_filter(pixels, size, **beyond)
    if only is not None:
        border &= np.isin(pixels, only)
    image = image.copy()
    image[border] = color
    return image


def group_colors(labels: np.ndarray) -> np.ndarray:
    """One colour for each group of ``labels``, int (h, w); larger ones less alike.

    Returns:
        (h, w, 3) on the 0-255 scale.
    """
    groups, inverse, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    rank = np.empty(len(groups))
    rank[np.argsort(-sizes, kind='stable')] = np.arange(len(groups))
    # Steps of the golden section never come close to an earlier hue; three
    # brightnesses tell apart the hues that do.
    hue = (0.58 + rank * 0.61803398875) % 1
    saturation = np.choose(rank.astype(int) % 3, [0.85, 0.55, 0.95])
    value = np.choose(rank.astype(int) % 3, [0.95, 1.0, 0.6])
    colors = hsv_to_rgb(np.stack([hue, saturation, value], axis=-1)) * 255
    return colors[inverse.reshape(np.shape(labels))]


def draw_groups(
    image: np.ndarray, labels: np.ndarray, fill: str = 'palette', opacity: float = 0.5
) -> np.ndarray:
    """Show which patches belong to one morphed token, as the paper's overview does.

    Between groups there are dark borders.

    Args:
        image: What to draw on.
        labels: int (h, w), each patch's group.
        fill: ``'palette'`` lays a distinct colour over every group of more than one
            patch and leaves single patches as they are; ``'mean'`` fills every
            group with the mean colour of its pixels.
        opacity: Of the palette's colours.

    Raises:
        ValueError: If ``fill`` is neither.
    """
    check_option(fill, FILLS, 'fill')
    labels = np.asarray(labels)
    _, inverse, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    inverse = inverse.reshape(labels.shape)
    if fill == 'palette':
        drawn = paint_cells(image, group_colors(labels), opacity * (sizes[inverse] > 1))
    else:
        pixels = _to_pixels(inverse[..., None], image)[..., 0]
        groups = range(len(sizes))
        channels = np.moveaxis(image, -1, 0)
        means = np.stack([ndimage.mean(c, pixels, groups) for c in channels], axis=-1)
        drawn = means.round().astype(np.uint8)[pixels]
    return outline(drawn, labels, _INK)


def draw_mask(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Cover the patches with grey where ``mask``, bool (h, w), is True."""
    mask = np.asarray(mask, bool)
    return paint_cells(image, np.full((*mask.shape, 3), 128.0), 1.0 * mask)


def draw_correctness(
    image: np.ndarray, right: np.ndarray, distance: np.ndarray, opacity: float = 0.6
) -> np.ndarray:
    """Green over right patches, light to dark red over wrong ones (Figure 2).

    Right patches also bear a dot, which tells them from wrong ones without colour.

    Args:
        image: What to draw on.
        right: bool (h, w).
        distance: (h, w) in [0, 1]: how far the predicted class lies from the true
            one; darkens the red.
        opacity: Of the colours.
    """
    share = np.clip(distance, 0, 1)[..., None]
    red = (1 - share) * np.array(WRONG[0]) + share * np.array(WRONG[1])
    colors = np.where(np.asarray(right)[..., None], np.array(RIGHT), red)
    # In grey, so that every colour is one of these.
    grey = np.asarray(Image.fromarray(image).convert('L').convert('RGB'))
    drawn = Image.fromarray(paint_cells(grey, colors, opacity))
    pen = ImageDraw.Draw(drawn)
    rows, columns = np.shape(right)
    height, width = image.shape[0] / rows, image.shape[1] / columns
    radius = max(1, round(min(height, width) / 10))
    for row, column in zip(*np.nonzero(right), strict=True):
        center = ((column + 0.5) * width, (row + 0.5) * height)
        pen.circle(center, radius, fill=_PAPER)
    return np.asarray(drawn)


def draw_boxes(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Frame boxes of cells, and number them at their upper left corner.

    ``boxes``, int (h, w), are 1, 2, ... in a box and 0 outside of them.
    """
    numbers = range(1, int(boxes.max()) + 1)
    framed = outline(image, boxes, _INK, width=4, only=numbers)
    drawn = Image.fromarray(outline(framed, boxes, _PAPER, width=2, only=numbers))
    pen = ImageDraw.Draw(drawn)
    height, width = image.shape[0] // len(boxes), image.shape[1] // boxes.shape[1]
    for number in numbers:
        row, column = np.argwhere(boxes == number)[0]
        center = (column * width + 9, row * height + 9)
        pen.circle(center, 9, fill=_PAPER, outline=_INK)
        font = ImageFont.load_default(12)
        pen.text(center, str(number), fill=_INK, font=font, anchor='mm')
    return np.asarray(drawn)


def sheet(
    rows: Sequence[Sequence[np.ndarray | None]], column_titles: Sequence[str]
) -> Figure:
    """A table of images with a title over each column.

    Args:
        rows: Equally many images a row; None leaves a place empty.
        column_titles: One a column.

    Returns:
        A figure with an axis for each place, row by row, whose labels are free.
    """
    sizes = [image.shape[:2] for row in rows for image in row if image is not None]
    height, width = map(max, zip(*sizes, strict=True))
    down, across = len(rows), len(column_titles)
    # A point for each pixel, and room for a line of text between the rows.
    size = (width * across + 12 * (across - 1), height * down + 36 * (down - 1))
    figure = Figure(figsize=(size[0] / 100, size[1] / 100), dpi=100)
    space = dict(left=0, bottom=0, right=1, top=1)
    space |= dict(wspace=12 / width, hspace=36 / height)
    axes = figure.subplots(down, across, squeeze=False, gridspec_kw=space)
    for axis, title in zip(axes[0], column_titles, strict=True):
        axis.set_title(shorten(title, max(20, width // 7), placeholder='…'), size=10)
    for line, row in zip(axes, rows, strict=True):
        for axis, image in zip(line, row, strict=True):
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            if image is not None:
                axis.imshow(image)
    return figure


def morphing_sheet(
    images: np.ndarray,
    masks: np.ndarray | None,
    assignments: Sequence[TokenAssignment],
    grid: tuple[int, int],
    fill: str = 'palette',
    side: int = 224,
) -> Figure:
    """What a pre-training step sees: images, block masks and groups of each level.

    There is a row for each image.

    Args:
        images: uint8 (B, H, W, 3).
        masks: bool (B, h, w), True = masked; None leaves the column out.
        assignments: One a level, of B images with h * w tokens.
        grid: Rows and columns of tokens (h, w).
        fill: See ``draw_groups``.
        side: Pixels of a picture.
    """
    titles = ['image']
    if masks is not None:
        titles.append(f'{masks[0].sum() / masks[0].size:.0%} masked')
    titles += [
        f'level {level}: {assignment.num_morphed} tokens'
        for level, assignment in enumerate(assignments, start=1)
    ]
    rows = []
    for index, image in enumerate(images):
        image = fit_to_grid(image, grid, side)
        row = [image]
        if masks is not None:
            row.append(draw_mask(image, masks[index]))
        for assignment in assignments:
            labels = assignment.labels[index].cpu().numpy().reshape(grid)
            row.append(draw_groups(image, labels, fill))
        rows.append(row)
    return sheet(rows, titles)


def render(figure: Figure) -> np.ndarray:
    """A figure's pixels, as :func:`save_figure` writes them."""
    written = BytesIO()
    figure.savefig(written, bbox_inches='tight')
    return np.asarray(Image.open(written).convert('RGB'))


def save_figure(figure: Figure, path: str | Path, **options: Any) -> None:
    """Write a figure, atomically, in the format that the suffix says.

    Args:
        figure: Of :func:`sheet`, or any other.
        path: The file.
        **options: Of ``Figure.savefig``.
    """
    options = dict(format=Path(path).suffix[1:], bbox_inches='tight') | options
    with atomic_write(path) as part:
        figure.savefig(part, **options)


def _to_pixels(cells: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Repeat (h, w, C) cells to the image's (H, W, C)."""
    rows, columns = cells.shape[:2]
    height, width = image.shape[:2]
    if height % rows or width % columns:
        raise ValueError(
            f'A grid of {rows}x{columns} cells does not divide an image of '
            f'{height}x{width} pixels. Bring it to size with fit_to_grid first.'
        )
    return cells.repeat(height // rows, axis=0).repeat(width // columns, axis=1)
