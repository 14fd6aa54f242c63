"""Where the object is, read from frozen patch tokens: a dense task that boxes give."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .linear_probe import fit_linear_probe


def patches_in_boxes(boxes: Tensor, size: int, patch_size: int) -> Tensor:
    """Which patches lie in their image's box, by at least half of their area.

    Args:
        boxes: (B, 4), first and last column and row of each: x0, y0, x1, y1.
        size: Side of the square images, in pixels.
        patch_size: Side of a patch.

    Returns:
        bool (B, h * w), in the order of the tokens.
    """
    place = torch.arange(size)
    x0, y0, x1, y1 = boxes[:, :, None].unbind(1)
    columns = ((x0 <= place) & (place <= x1)).float()
    rows = ((y0 <= place) & (place <= y1)).float()
    inside = rows[:, :, None] * columns[:, None]
    return (F.avg_pool2d(inside[:, None], patch_size) >= 0.5).flatten(1)


def box_probe(
    train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor], max_iter: int = 50
) -> float:
    """Mean IoU, in percent, of object and surroundings by a linear probe of tokens.

    Args:
        train: Tokens (B, N, D), and whether each lies on the object, bool (B, N).
        val: Likewise, to judge.
        max_iter: L-BFGS iterations.

    Returns:
        The mean of the two IoUs, over all patches of ``val`` together.
    """
    tokens, inside = train
    linear = fit_linear_probe(
        tokens.flatten(0, 1), inside.flatten().long(), max_iter=max_iter
    )
    tokens, inside = val
    with torch.no_grad():
        said = torch.cat([linear(part).argmax(-1) for part in tokens.split(500)]) == 1
    shares = [
        (a & b).sum() / (a | b).sum() for a, b in ((said, inside), (~said, ~inside))
    ]
    return 50 * float(sum(shares))
