"""What the analysis tools on CLIP share: options, images in, images out."""

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import mmdtm.prepare  # noqa: F401  isort: skip
import open_clip
import torch
from torch import Tensor

from mmdtm.evaluation.labelled_images import ClassNames, find_images, read_image
from mmdtm.evaluation.patch_zero_shot import ZeroShotCLIP


def add_clip_options(parser: argparse.ArgumentParser) -> None:
    """Which CLIP, and where it runs."""
    add = parser.add_argument_group('CLIP').add_argument
    add('--model', default='ViT-B-16-quickgelu', metavar='NAME', help='of open_clip')
    text = 'weights: a tag of open_clip, or a local file'
    add('--pretrained', default='openai', metavar='TAG_OR_FILE', help=text)
    text = 'JSON of a model that open_clip does not know by name'
    add('--model-config', metavar='FILE', help=text)
    text = 'no weights, to try out the tool; the results mean nothing'
    add('--random-weights', action='store_true', help=text)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    add('--device', default=device, help='where it runs')


def add_class_options(parser: argparse.ArgumentParser) -> None:
    """What the classes are called, and in which sentences."""
    add = parser.add_argument_group('classes').add_argument
    add(
        '--classes',
        default='imagenet',
        metavar='WHICH',
        help="'imagenet' (names of open_clip; folders may be wnids), 'folders' (the "
        'names of the sub-folders; for one class alone, of those beside it), or a file '
        'with one NAME or FOLDER<TAB>NAME a line',
    )
    add(
        '--templates',
        nargs='+',
        default=['openai'],
        metavar='TEXT',
        help="sentences with {} for the name, averaged; 'openai' (80) or 'simple' "
        '(7) are the sets made for ImageNet',
    )


def add_morphing_options(parser: argparse.ArgumentParser) -> None:
    """How many tokens remain, after how many iterations."""
    add = parser.add_argument_group('morphing').add_argument
    text = 'tokens that remain (default: half of them, 98 of 196)'
    add('--num-morphed', type=int, metavar='N_M', help=text)
    text = 'iterations of bipartite matching'
    add('--num-iters', type=int, default=7, metavar='K', help=text)


def clip_arguments(args: argparse.Namespace) -> tuple:
    """The chosen CLIP, as ``OpenCLIPGenerator`` and ``ZeroShotCLIP`` take it."""
    pretrained = None if args.random_weights else args.pretrained
    return args.model, pretrained, args.model_config


def load_classes(args: argparse.Namespace, folder: Path) -> ClassNames:
    """The chosen class list; with ``--classes folders`` that of the images' folder.

    Raises:
        FileNotFoundError: If the list, or a sub-folder, is missing.
        ValueError: If the list is not usable, or the folders give one class alone.
    """
    if args.classes == 'imagenet':
        return ClassNames.imagenet()
    if args.classes != 'folders':
        return ClassNames.from_file(args.classes)
    parents = {image.absolute().parent for image in find_images(folder)}
    if len(parents) == 1:  # the folders beside it are classes, too
        parents = {p for p in next(iter(parents)).parent.iterdir() if p.is_dir()}
    names = sorted({parent.name for parent in parents})
    if len(names) < 2:
        raise ValueError(
            f'--classes folders finds one class alone, {names[0]!r}, which is always '
            'right. Name the classes in a file.'
        )
    return ClassNames([name.replace('_', ' ') for name in names], names)


def load_templates(names: list[str]) -> list:
    """The chosen sentences.

    Raises:
        ValueError: If one has no place for the name.
    """
    if names == ['openai']:
        return list(open_clip.OPENAI_IMAGENET_TEMPLATES)
    if names == ['simple']:
        return list(open_clip.SIMPLE_IMAGENET_TEMPLATES)
    for template in names:
        if '{}' not in template:
            raise ValueError(
                f'--templates: {template!r} has no {{}} for the class name. Put one '
                "where it belongs, as in 'a photo of a {}.'"
            )
    return names


def load_zero_shot(
    args: argparse.Namespace, classes: ClassNames
) -> tuple[ZeroShotCLIP, Tensor, int]:
    """The chosen CLIP, the classes' embeddings (C, D), and N_m.

    Raises:
        FileNotFoundError: If the model is not there.
        ValueError: If an option does not fit the model.
    """
    templates = load_templates(args.templates)
    clip = ZeroShotCLIP(*clip_arguments(args), args.random_weights)
    classifier = clip.to(args.device).classifier(
        classes.names, templates, progress=len(classes) * len(templates) > 1000
    )
    half = clip.grid_size[0] * clip.grid_size[1] // 2
    return clip, classifier, half if args.num_morphed is None else args.num_morphed


def read_views(
    paths: Iterable[Path], transform, device: str
) -> Iterator[tuple[Path, Tensor]]:
    """Images as (1, 3, H, W); what cannot be read is named on stderr and left out."""
    for path in paths:
        try:
            view = transform(read_image(path))
        except ValueError as error:
            print(f'left out: {error}', file=sys.stderr)
        else:
            yield path, view[None].to(device)


def picture_name(image: Path, taken: set[str]) -> str:
    """``FOLDER_NAME.png``, numbered where that is taken; takes it."""
    stem = f'{image.absolute().parent.name}_{image.stem}'
    name, number = f'{stem}.png', 2
    while name in taken:
        name, number = f'{stem}_{number}.png', number + 1
    taken.add(name)
    return name
