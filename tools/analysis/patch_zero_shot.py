r"""Draw patch-wise zero-shot classes without and with token morphing (Figures 2, 6).

For each image two pictures side by side: a patch is green where the class of its
token is the right one, deeper the more probable it is, and red where it is wrong,
darker the farther the predicted class lies from the true one (one minus the cosine
similarity of their text embeddings, as a share of the farthest class). Some
patches, or with morphing the groups that hold them, are boxed, numbered and named
below::

    python tools/analysis/patch_zero_shot.py data/imagenet/val/n01440764 \
        --model ViT-B-16 --pretrained openai --out work_dirs/fig2

The true class is the name of the image's folder (a wnid or a class name), or
``--label``. An image that cannot be read, or whose class is unknown, is named and
left out.
"""

import argparse
import json
import sys
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
from mmdtm.io import write_text
from mmdtm.morphing import TokenAssignment


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
        help='folder for the pictures and results.json (default: %(default)s)',
    )
    parser.add_argument(
        '--boxes',
        type=int,
        default=4,
        metavar='N',
        help='patches to name, spread over the image (default: %(default)s)',
    )
    parser.add_argument(
        '--side',
        type=int,
        default=448,
        metavar='PIXELS',
        help='of each picture (default: %(default)s)',
    )
    add_clip_options(parser)
    add_class_options(parser)
    add_morphing_options(parser)
    args = parser.parse_args(argv)
    if args.boxes < 0:
        parser.error(f'--boxes must be at least 0, got {args.boxes}.')
    return args


def cells_to_name(labels: np.ndarray, count: int) -> list[tuple[int, int]]:
    """Choose patches of large groups, spread over the image.

    The grid is cut into ``count`` fields; in each the patch of the largest group that
    is not named yet is taken, and of equal ones the nearest to the field's middle.

    Args:
        labels: int (h, w), each patch's group.
        count: How many fields; fewer patches come out where groups run out.

    Returns:
        (row, column) of each.
    """
    if count == 0:
        return []
    sizes = np.bincount(labels.ravel())
    across = int(np.ceil(np.sqrt(count)))
    down = int(np.ceil(count / across))
    height, width = labels.shape
    chosen: list[tuple[int, int]] = []
    named: set[int] = set()
    for field in range(count):
        top, left = field // across * height / down, field % across * width / across
        middle = (top + height / down / 2 - 0.5, left + width / across / 2 - 0.5)
        candidates = [
            (
                -sizes[labels[row, column]],
                (row - middle[0]) ** 2 + (column - middle[1]) ** 2,
                row,
                column,
            )
            for row in range(int(top), int(np.ceil(top + height / down)))
            for column in range(int(left), int(np.ceil(left + width / across)))
            if row < height and column < width and labels[row, column] not in named
        ]
        if candidates:
            row, column = min(candidates)[2:]
            named.add(labels[row, column])
            chosen.append((row, column))
    return chosen


def draw_panel(
    image: np.ndarray,
    predictions: PatchPredictions,
    labels: np.ndarray,
    cells: list[tuple[int, int]],
    names: list[str],
) -> tuple[np.ndarray, np.ndarray | None]:
    """One picture of Figure 2, and the names that belong under it.

    Args:
        image: uint8 (H, W, 3), fitted to the grid.
        predictions: Of this image alone (B = 1).
        labels: int (h, w), each patch's group; all different without morphing.
        cells: Patches to box, with their groups.
        names: Of the classes.

    Returns:
        The picture, and the list of names; None without ``cells``.
    """
    grid = labels.shape
    right, distance, confidence, predicted = (
        values[0].cpu().numpy().reshape(grid)
        for values in (
            predictions.right,
            predictions.distance,
            predictions.confidence,
            predictions.predicted,
        )
    )
    drawn = vis.draw_correctness(image, right, distance, confidence)
    if not cells:
        return drawn, None
    groups = [labels[cell] for cell in cells]
    drawn = vis.outline(drawn, labels, (0, 0, 0), width=4, only=groups)
    drawn = vis.outline(drawn, labels, (255, 255, 255), width=2, only=groups)
    drawn = vis.draw_badges(drawn, grid, cells)
    lines = []
    for cell, group in zip(cells, groups, strict=True):
        size = int((labels == group).sum())
        lines.append(
            names[predicted[cell]] + (f' ({size} patches)' if size > 1 else '')
        )
    key = vis.badge_key(lines, drawn.shape[1], [bool(right[cell]) for cell in cells])
    return drawn, key


def draw_image(
    image: np.ndarray,
    title: str,
    target: int,
    names: list[str],
    panels: list[tuple[str, PatchPredictions, np.ndarray]],
    boxes: int,
) -> np.ndarray:
    """The whole picture of one image.

    Args:
        image: uint8 (H, W, 3), fitted to the grid.
        title: Its heading.
        target: True class.
        names: Of the classes.
        panels: Title, predictions and groups (h, w) of each picture.
        boxes: How many patches to name: the same ones in each picture, chosen by the
            last picture's groups.

    Returns:
        uint8 (H, W, 3).
    """
    cells = cells_to_name(panels[-1][2], boxes)
    width = image.shape[1]
    columns = []
    for _, predictions, labels in panels:
        drawn, key = draw_panel(image, predictions, labels, cells, names)
        said = int(predictions.image[0])
        counts = (
            f'{int(predictions.right.sum())} of {labels.size} patches right; '
            f'together: {names[said]} '
        )
        counts += '\u2713' if said == target else '\u2717'
        blocks = [drawn, vis.text_block([counts], width, size=13)]
        if key is not None:
            blocks.append(key)
        columns.append(vis.stack(blocks, axis=0, gap=4))
    body = vis.sheet([columns], [title for title, _, _ in panels])
    heading = vis.text_block([title], body.shape[1] - 24, size=16, line=30)
    key = vis.correctness_key(body.shape[1] - 24)
    framed = [
        np.pad(block, ((0, 0), (12, 12), (0, 0)), constant_values=255)
        for block in (heading, key)
    ]
    page = vis.stack([framed[0], body, framed[1]], axis=0, gap=0)
    return np.pad(page, ((6, 10), (0, 0), (0, 0)), constant_values=255)


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
    grid = clip.grid_size
    args.out.mkdir(parents=True, exist_ok=True)
    names = set()
    for path, target in items:
        try:
            view = clip.transform(read_image(path))[None].to(args.device)
        except ValueError as error:
            print(f'left out: {error}', file=sys.stderr)
            continue
        _, tokens = clip(view)
        apart = TokenAssignment.identity(1, tokens.shape[1], tokens.device)
        merged = morph_tokens(tokens, remain, args.num_iters)
        panels = []
        for title, assignment in (
            (f'without morphing: {tokens.shape[1]} tokens', apart),
            (f'with morphing: {remain} tokens, {args.num_iters} iterations', merged),
        ):
            logits = patch_logits(
                patch_features(tokens, assignment), classifier, clip.scale
            )
            predictions = judge(
                logits, torch.tensor([target], device=logits.device), distances
            )
            panels.append(
                (title, predictions, assignment.labels[0].cpu().numpy().reshape(grid))
            )
        picture = vis.fit_to_grid(
            vis.denormalize(view, clip.mean, clip.std)[0], grid, args.side
        )
        page = draw_image(
            picture,
            f'{path.name}: {classes.names[target]}',
            target,
            classes.names,
            panels,
            args.boxes,
        )
        file = args.out / picture_name(path, names)
        Image.fromarray(page).save(file)
        yield dict(
            image=str(path),
            label=classes.names[target],
            picture=str(file),
            patches=tokens.shape[1],
            right_without=int(panels[0][1].right.sum()),
            right_with=int(panels[1][1].right.sum()),
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
