r"""Draw patch-wise zero-shot classes without and with token morphing (Figures 2, 6).

For each image three panels side by side: the image, and its patches without and with
morphing. A patch is green where the class of its token is the right one, and red where
it is wrong, darker the farther the predicted class lies from the true one (one minus
the cosine similarity of their text embeddings, as a share of the farthest class). Some
boxes of patches are numbered, and the classes of their patches are listed below::

    python tools/analysis/patch_zero_shot.py data/imagenet/val/n01440764 \
        --model ViT-B-16 --pretrained openai --out work_dirs/fig2

The true class is the name of the image's folder (a wnid or a class name), or
``--label``. An image that cannot be read, or whose class is unknown, is named and
left out.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from textwrap import shorten

import numpy as np
import torch
from clip_options import (
    add_class_options,
    add_clip_options,
    add_morphing_options,
    load_classes,
    load_zero_shot,
    picture_name,
    read_views,
)
from matplotlib.patches import Patch

from mmdtm import visualization as vis
from mmdtm.cli.scripts import script, script_parser
from mmdtm.evaluation.labelled_images import find_images, label_images
from mmdtm.evaluation.patch_zero_shot import (
    PatchPredictions,
    class_distances,
    judge,
    morph_tokens,
    patch_features,
    patch_logits,
)
from mmdtm.io import write_text

KEY = [
    Patch(color=np.divide(color, 255), label=text)
    for color, text in (
        (vis.RIGHT, 'right (with a dot)'),
        (vis.WRONG[0], 'wrong, near'),
        (vis.WRONG[1], 'wrong, far off'),
    )
]


def parse_args(argv):
    parser = script_parser(__doc__)
    add = parser.add_argument
    add('images', type=Path, help='an image, or a folder of images')
    add('--label', help='true class of all images, instead of their folders')
    text = 'folder for the images and results.json'
    add('--out', type=Path, default=Path('work_dirs/patch_zero_shot'), help=text)
    text = 'boxes of patches whose classes are listed'
    add('--boxes', type=int, default=4, metavar='N', help=text)
    add('--side', type=int, default=336, metavar='PIXELS', help='of each panel')
    add_clip_options(parser)
    add_class_options(parser)
    add_morphing_options(parser)
    args = parser.parse_args(argv)
    if args.boxes < 0:
        parser.error(f'--boxes must be at least 0, got {args.boxes}.')
    return args


def spread_boxes(grid: tuple[int, int], count: int, side: int = 3) -> np.ndarray:
    """Boxes of patches in the middles of equal fields of the image.

    Args:
        grid: Rows and columns (h, w).
        count: How many; less than that where the grid has no place.
        side: Of a box, in patches; smaller where a field is.

    Returns:
        int (h, w): 1, 2, ... in a box, 0 outside of them.
    """
    boxes = np.zeros(grid, int)
    across = max(1, int(np.ceil(np.sqrt(count))))
    down = max(1, int(np.ceil(count / across)))
    fields = [
        (rows, columns)
        for rows in np.array_split(np.arange(grid[0]), down)
        for columns in np.array_split(np.arange(grid[1]), across)
        if len(rows) and len(columns)
    ]
    for number, field in enumerate(fields[:count], start=1):
        starts = [cells[max(0, (len(cells) - side) // 2)] for cells in field]
        ends = [
            start + min(side, len(cells))
            for start, cells in zip(starts, field, strict=True)
        ]
        boxes[starts[0] : ends[0], starts[1] : ends[1]] = number
    return boxes


def classes_in(predicted: np.ndarray, target: int, names: list[str]) -> str:
    """How many patches say what, most frequent first: ``5 hen \u2713, 4 cock``."""
    counts = Counter(predicted.ravel().tolist()).most_common()
    return ', '.join(
        f'{count} {names[index]}' + ' \u2713' * (index == target)
        for index, count in counts
    )


def draw_panel(
    image: np.ndarray,
    predictions: PatchPredictions,
    target: int,
    names: list[str],
    boxes: np.ndarray,
) -> tuple[np.ndarray, str]:
    """One picture of Figure 2; its count of right patches and its boxes' classes.

    Args:
        image: uint8 (H, W, 3), fitted to the grid.
        predictions: Of this image alone (B = 1).
        target: True class, an index of ``names``.
        names: Of the classes.
        boxes: From ``spread_boxes``.
    """
    right, distance, predicted = (
        values[0].cpu().numpy().reshape(boxes.shape)
        for values in (predictions.right, predictions.distance, predictions.predicted)
    )
    drawn = vis.draw_boxes(vis.draw_correctness(image, right, distance), boxes)
    said = int(predictions.image[0])
    lines = [
        f'{right.sum()} of {right.size} patches right; together: {names[said]} '
        + ('\u2713' if said == target else '\u2717')
    ]
    for number in range(1, boxes.max() + 1):
        said = classes_in(predicted[boxes == number], target, names)
        lines.append(f'{number}: {said}')
    width = max(20, image.shape[1] // 7)  # letters
    return drawn, '\n'.join(shorten(line, width, placeholder=' …') for line in lines)


def analyse(args: argparse.Namespace) -> Iterator[dict]:
    """Draw image after image, yielding what was found in each."""
    classes = load_classes(args, args.images)
    items, messages = label_images(find_images(args.images), classes, args.label)
    for message in messages:
        print(message, file=sys.stderr)
    clip, classifier, remain = load_zero_shot(args, classes)
    distances = class_distances(classifier)
    boxes = spread_boxes(clip.grid_size, args.boxes)
    targets, taken = dict(items), set()
    for path, view in read_views(targets, clip.transform, args.device):
        target, name = targets[path], classes.names[targets[path]]
        _, tokens = clip(view)
        pixels = vis.denormalize(view, clip.mean, clip.std)[0]
        image = vis.fit_to_grid(pixels, clip.grid_size, args.side)
        panels = [(vis.draw_boxes(image, boxes), '')]
        right = []
        for assignment in (None, morph_tokens(tokens, remain, args.num_iters)):
            features = patch_features(tokens, assignment)
            logits = patch_logits(features, classifier, clip.scale)
            true = torch.tensor([target], device=logits.device)
            found = judge(logits, true, distances)
            panels.append(draw_panel(image, found, target, classes.names, boxes))
            right.append(int(found.right.sum()))
        titles = [
            f'{path.name}: {name}',
            f'without morphing: {tokens.shape[1]} tokens',
            f'with morphing: {remain} tokens, {args.num_iters} iterations',
        ]
        file = args.out / picture_name(path, taken)
        page = vis.sheet([[picture for picture, _ in panels]], titles)
        for axis, (_, text) in zip(page.axes, panels, strict=True):
            axis.set_xlabel(text, loc='left')
        place = dict(loc='upper left', bbox_to_anchor=(0, 0), frameon=False)
        page.axes[0].legend(handles=KEY, **place)
        vis.save_figure(page, file)
        yield dict(
            image=str(path),
            label=name,
            picture=str(file),
            patches=tokens.shape[1],
            right_without=right[0],
            right_with=right[1],
        )


@script
def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    results = []
    for result in analyse(args):
        results.append(result)
        print(
            f'{result["picture"]}: right {result["right_without"]} without, '
            f'{result["right_with"]} with morphing, of {result["patches"]}'
        )
    if not results:
        raise ValueError(
            'No image could be analysed. Mend what is said above, or name others.'
        )
    write_text(args.out / 'results.json', json.dumps(results, indent=1))
    patches, without, morphed = (
        sum(result[key] for result in results)
        for key in ('patches', 'right_without', 'right_with')
    )
    print(
        f'{len(results)} image(s): {without / patches:.1%} of the patches right '
        f'without morphing, {morphed / patches:.1%} with'
    )


if __name__ == '__main__':
    sys.exit(main())
