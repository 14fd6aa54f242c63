r"""Draw which patches are morphed together, for several N_m and k (paper's overview).

One grid of panels for each image: a column for every number of morphed tokens N_m, a
row for every number of iterations k::

    python tools/analysis/show_morphing.py photo.jpg --model ViT-B-16 \
        --pretrained openai --num-morphed 147 98 49 14 --num-iters 1 7 14

Patches of one colour are one morphed token; patches without a colour stayed alone. What
cannot be reached (one iteration merges half of the tokens at most) is said below the
panel.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from clip_options import (
    add_clip_options,
    load_generator,
    picture_name,
)
from PIL import Image

from mmdtm import visualization as vis
from mmdtm.evaluation.labelled_images import find_images, read_image
from mmdtm.evaluation.patch_zero_shot import view_transform
from mmdtm.io import atomic_write
from mmdtm.morphing import bipartite_matching, merge_schedule


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('images', nargs='+', type=Path, help='images or folders')
    parser.add_argument(
        '--num-morphed',
        nargs='+',
        type=int,
        metavar='N_M',
        help='tokens that remain (default: 3/4, 1/2, 1/4 and 1/14 of them)',
    )
    parser.add_argument(
        '--num-iters',
        nargs='+',
        type=int,
        default=[1, 7, 14],
        metavar='K',
        help='iterations (default: 1 7 14)',
    )
    parser.add_argument(
        '--fill',
        choices=('palette', 'mean'),
        default='palette',
        help="distinct colours, or each group's mean colour (default: %(default)s)",
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('work_dirs/show_morphing'),
        help='folder for the images (default: %(default)s)',
    )
    parser.add_argument(
        '--side',
        type=int,
        default=224,
        metavar='PIXELS',
        help='of each panel (default: %(default)s)',
    )
    add_clip_options(parser)
    return parser.parse_args(argv)


def draw_image(
    image: np.ndarray,
    tokens: torch.Tensor,
    grid: tuple[int, int],
    num_morphed: list[int],
    num_iters: list[int],
    fill: str,
) -> np.ndarray:
    """A table of groupings of one image.

    Args:
        image: uint8 (H, W, 3), fitted to the grid.
        tokens: Target tokens (1, N, D).
        grid: Rows and columns (h, w), h * w = N.
        num_morphed: N_m, one a column.
        num_iters: k, one a row.
        fill: See ``mmdtm.visualization.draw_groups``.

    Returns:
        uint8 (H, W, 3).

    Raises:
        ValueError: If an N_m is not in [1, N] or a k below 1.
    """
    height, width = image.shape[:2]
    rows = []
    for k in num_iters:
        label = np.full((height, 70, 3), 255, np.uint8)
        label[height // 2 - 11 : height // 2 + 11] = vis.text_block([f'k = {k}'], 70)
        row = [label]
        row.append(image if not rows else np.full_like(image, 255))
        for remain in num_morphed:
            schedule = merge_schedule(tokens.shape[1], remain, k)
            assignment = bipartite_matching(tokens, schedule)
            labels = assignment.labels[0].cpu().numpy().reshape(grid)
            note = f'stops at {assignment.num_morphed} tokens'
            note = '' if assignment.num_morphed == remain else note
            text = vis.text_block([note], width, size=12, faint=True)
            picture = vis.draw_groups(image, labels, fill)
            row.append(vis.stack([picture, text], axis=0, gap=0))
        rows.append(row)
    titles = ['', f'{tokens.shape[1]} tokens']
    return vis.sheet(rows, titles + [f'N_m = {remain}' for remain in num_morphed])


def find_all(paths: list[Path]) -> list[Path]:
    """The images of all paths; one without any is named and left out."""
    images = []
    for path in paths:
        try:
            images += find_images(path)
        except FileNotFoundError as error:
            print(f'left out: {error}', file=sys.stderr)
    return images


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    written, names = 0, set()
    try:
        generator = load_generator(args)
        transform = view_transform(generator)
        grid = generator.grid_size
        parts = [max(1, grid[0] * grid[1] * part // 28) for part in (21, 14, 7, 2)]
        num_morphed = args.num_morphed or list(dict.fromkeys(parts))
        args.out.mkdir(parents=True, exist_ok=True)
        for path in find_all(args.images):
            try:
                photo = read_image(path)
            except ValueError as error:
                print(f'left out: {error}', file=sys.stderr)
                continue
            view = transform(photo)[None].to(args.device)
            image = vis.fit_to_grid(
                vis.denormalize(view, generator.mean, generator.std)[0], grid, args.side
            )
            page = draw_image(
                image, generator(view), grid, num_morphed, args.num_iters, args.fill
            )
            file = args.out / picture_name(path, names)
            with atomic_write(file) as part:
                Image.fromarray(page).save(part, 'PNG')
            print(f'wrote {file}')
            written += 1
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    if not written:
        print('No image could be read.', file=sys.stderr)
    return 0 if written else 1


if __name__ == '__main__':
    sys.exit(main())
