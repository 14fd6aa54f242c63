r"""Draw which patches are morphed together, for several N_m and k (paper's overview).

One grid of panels for each image: a column for every number of morphed tokens N_m, a
row for every number of iterations k::

    python tools/analysis/show_morphing.py photo.jpg --model ViT-B-16 \
        --pretrained openai --num-morphed 147 98 49 14 --num-iters 1 7 14

Patches of one colour are one morphed token; patches without a colour stayed alone. What
cannot be reached (one iteration merges half of the tokens at most) is said below the
panel.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from clip_options import add_clip_options, clip_arguments, picture_name, read_views
from matplotlib.figure import Figure

from mmdtm import visualization as vis
from mmdtm.cli.scripts import script, script_parser
from mmdtm.evaluation.labelled_images import find_images
from mmdtm.evaluation.patch_zero_shot import view_transform
from mmdtm.models.target_generators import OpenCLIPGenerator
from mmdtm.morphing import bipartite_matching, merge_schedule


def parse_args(argv):
    parser = script_parser(__doc__)
    add = parser.add_argument
    add('images', nargs='+', type=Path, help='images or folders')
    text = 'tokens that remain (default: 3/4, 1/2, 1/4 and 1/14 of them)'
    add('--num-morphed', nargs='+', type=int, metavar='N_M', help=text)
    iters = [1, 7, 14]
    add('--num-iters', nargs='+', type=int, default=iters, metavar='K', help='k')
    text = "distinct colours, or each group's mean colour"
    add('--fill', choices=('palette', 'mean'), default='palette', help=text)
    out = Path('work_dirs/show_morphing')
    add('--out', type=Path, default=out, help='folder for the images')
    add('--side', type=int, default=224, metavar='PIXELS', help='of each panel')
    add_clip_options(parser)
    return parser.parse_args(argv)


def draw_image(
    image: np.ndarray,
    tokens: torch.Tensor,
    grid: tuple[int, int],
    num_morphed: list[int],
    num_iters: list[int],
    fill: str,
) -> Figure:
    """A table of groupings of one image, an N_m a column and a k a row.

    Args:
        image: uint8 (H, W, 3), fitted to the grid.
        tokens: Target tokens (1, N, D).
        grid: Rows and columns (h, w), h * w = N.
        num_morphed: Numbers of tokens N_m.
        num_iters: Numbers of iterations k.
        fill: See ``mmdtm.visualization.draw_groups``.

    Raises:
        ValueError: If an N_m is not in [1, N] or a k below 1.
    """
    rows, labels_below = [], []
    for k in num_iters:
        row = [None if rows else image]
        labels_below.append('')
        for remain in num_morphed:
            schedule = merge_schedule(tokens.shape[1], remain, k)
            assignment = bipartite_matching(tokens, schedule)
            labels = assignment.labels[0].cpu().numpy().reshape(grid)
            row.append(vis.draw_groups(image, labels, fill))
            note = f'stops at {assignment.num_morphed} tokens'
            labels_below.append('' if assignment.num_morphed == remain else note)
        rows.append(row)
    titles = [f'N_m = {remain}' for remain in num_morphed]
    page = vis.sheet(rows, [f'{tokens.shape[1]} tokens', *titles])
    for axis, note in zip(page.axes, labels_below, strict=True):
        axis.set_xlabel(note)
    for axis, k in zip(page.axes[:: 1 + len(num_morphed)], num_iters, strict=True):
        axis.set_ylabel(f'k = {k}')
    return page


def find_all(paths: list[Path]) -> list[Path]:
    """The images of all paths; one without any is named and left out."""
    images = []
    for path in paths:
        try:
            images += find_images(path)
        except FileNotFoundError as error:
            print(f'left out: {error}', file=sys.stderr)
    return images


@script
def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    random = args.random_weights
    generator = OpenCLIPGenerator(*clip_arguments(args), random_weights=random)
    generator.to(args.device)
    grid = generator.grid_size
    parts = [max(1, grid[0] * grid[1] * part // 28) for part in (21, 14, 7, 2)]
    num_morphed = args.num_morphed or list(dict.fromkeys(parts))
    paths, names = find_all(args.images), set()
    for path, view in read_views(paths, view_transform(generator), args.device):
        pixels = vis.denormalize(view, generator.mean, generator.std)[0]
        image = vis.fit_to_grid(pixels, grid, args.side)
        tokens = generator(view)
        page = draw_image(image, tokens, grid, num_morphed, args.num_iters, args.fill)
        file = args.out / picture_name(path, names)
        vis.save_figure(page, file)
        print(f'wrote {file}')
    if not names:
        raise ValueError('No image could be read. Name others.')


if __name__ == '__main__':
    sys.exit(main())
