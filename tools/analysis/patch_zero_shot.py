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

import numpy as np
import torch
from clip_options import (
    add_class_options,
    add_clip_options,
    add_morphing_options,
    load_classes,
    load_zero_shot,
    picture_name,
)
from PIL import Image

from mmdtm import visualization as vis
from mmdtm.evaluation.labelled_images import (
    find_images,
    label_images,
    read_image,
)
from mmdtm.evaluation.patch_zero_shot import (
    PatchPredictions,
    class_distances,
    judge,
    morph_tokens,
    patch_features,
    patch_logits,
)
from mmdtm.io import atomic_write, write_text


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('images', type=Path, help='an image, or a folder of images')
    parser.add_argument(
        '--label', help='true class of all images, instead of their folders'
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('work_dirs/patch_zero_shot'),
        help='folder for the images and results.json (default: %(default)s)',
    )
    parser.add_argument(
        '--boxes',
        type=int,
        default=4,
        metavar='N',
        help='boxes of patches whose classes are listed (default: %(default)s)',
    )
    parser.add_argument(
        '--side',
        type=int,
        default=336,
        metavar='PIXELS',
        help='of each panel (default: %(default)s)',
    )
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
) -> np.ndarray:
    """One picture of Figure 2 with its count of right patches and its boxes' classes.

    Args:
        image: uint8 (H, W, 3), fitted to the grid.
        predictions: Of this image alone (B = 1).
        target: True class.
        names: Of the classes.
        boxes: From ``spread_boxes``.

    Returns:
        uint8 (H, W, 3).
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
    blocks = [drawn, vis.text_block(lines, image.shape[1], size=13)]
    if boxes.any():
        lines = [
            classes_in(predicted[boxes == number], target, names)
            for number in range(1, boxes.max() + 1)
        ]
        blocks.append(vis.badge_key(lines, image.shape[1]))
    return vis.stack(blocks, axis=0, gap=4)


def analyse(args: argparse.Namespace) -> Iterator[dict]:
    """Draw image after image, yielding what was found in each.

    Raises:
        FileNotFoundError: If an input or the model is not there.
        ValueError: If an option does not fit the model.
    """
    images = find_images(args.images)
    classes = load_classes(args, args.images)
    items, messages = label_images(images, classes, args.label)
    for message in messages:
        print(message, file=sys.stderr)
    clip, classifier, remain = load_zero_shot(args, classes)
    distances = class_distances(classifier)
    boxes = spread_boxes(clip.grid_size, args.boxes)
    args.out.mkdir(parents=True, exist_ok=True)
    names = set()
    for path, target in items:
        try:
            view = clip.transform(read_image(path))[None].to(args.device)
        except ValueError as error:
            print(f'left out: {error}', file=sys.stderr)
            continue
        _, tokens = clip(view)
        merged = morph_tokens(tokens, remain, args.num_iters)
        pixels = vis.denormalize(view, clip.mean, clip.std)[0]
        image = vis.fit_to_grid(pixels, clip.grid_size, args.side)
        key = vis.correctness_key(image.shape[1])
        columns = [vis.stack([vis.draw_boxes(image, boxes), key], axis=0, gap=4)]
        right = []
        for assignment in (None, merged):
            logits = patch_logits(
                patch_features(tokens, assignment), classifier, clip.scale
            )
            predictions = judge(
                logits, torch.tensor([target], device=logits.device), distances
            )
            columns.append(draw_panel(image, predictions, target, classes.names, boxes))
            right.append(int(predictions.right.sum()))
        titles = [
            f'{path.name}: {classes.names[target]}',
            f'without morphing: {tokens.shape[1]} tokens',
            f'with morphing: {remain} tokens, {args.num_iters} iterations',
        ]
        page = vis.sheet([columns], titles)
        file = args.out / picture_name(path, names)
        with atomic_write(file) as part:
            Image.fromarray(page).save(part, 'PNG')
        yield dict(
            image=str(path),
            label=classes.names[target],
            picture=str(file),
            patches=tokens.shape[1],
            right_without=right[0],
            right_with=right[1],
        )


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    results = []
    try:
        for result in analyse(args):
            results.append(result)
            print(
                f'{result["picture"]}: right {result["right_without"]} without, '
                f'{result["right_with"]} with morphing, of {result["patches"]}'
            )
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    if not results:
        print('No image could be analysed.', file=sys.stderr)
        return 1
    write_text(args.out / 'results.json', json.dumps(results, indent=1))
    patches = sum(result['patches'] for result in results)
    without, morphed = (
        100 * sum(result[key] for result in results) / patches
        for key in ('right_without', 'right_with')
    )
    print(
        f'{len(results)} image(s): {without:.1f} % of the patches right without '
        f'morphing, {morphed:.1f} % with'
    )
    return 0


if __name__ == '__main__':
    sys.exit(main())
