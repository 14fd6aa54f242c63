"""Options that the analysis tools on CLIP share."""

import argparse
from pathlib import Path

import mmdtm.prepare  # noqa: F401  isort: skip
import open_clip
import torch
from torch import Tensor

from mmdtm.evaluation.labelled_images import ClassNames, find_images
from mmdtm.evaluation.patch_zero_shot import ZeroShotCLIP
from mmdtm.models.target_generators import OpenCLIPGenerator


def add_clip_options(parser: argparse.ArgumentParser) -> None:
    """Which CLIP, and where it runs."""
    group = parser.add_argument_group('CLIP')
    group.add_argument(
        '--model',
        default='ViT-B-16-quickgelu',
        metavar='NAME',
        help='open_clip model (default: %(default)s)',
    )
    group.add_argument(
        '--pretrained',
        default='openai',
        metavar='TAG_OR_FILE',
        help='weights: a tag of open_clip, or a local file (default: %(default)s)',
    )
    group.add_argument(
        '--model-config',
        metavar='FILE',
        help='JSON of a model that open_clip does not know by name',
    )
    group.add_argument(
        '--random-weights',
        action='store_true',
        help='no weights, to try out the tool; the results mean nothing',
    )
    group.add_argument(
        '--device',
        default='cuda' if torch.cuda.is_available() else 'cpu',
        help='default: %(default)s',
    )


def add_class_options(parser: argparse.ArgumentParser) -> None:
    """What the classes are called, and in which sentences."""
    group = parser.add_argument_group('classes')
    group.add_argument(
        '--classes',
        default='imagenet',
        metavar='WHICH',
        help="'imagenet' (names of open_clip; folders may be wnids), 'folders' (the "
        'names of the sub-folders; for one class alone, of those beside it), or a file '
        'with one NAME or FOLDER<TAB>NAME a line (default: %(default)s)',
    )
    group.add_argument(
        '--templates',
        nargs='+',
        default=['openai'],
        metavar='TEXT',
        help="sentences with {} for the name, averaged; 'openai' (80) or 'simple' "
        '(7) are the sets made for ImageNet (default: openai)',
    )


def add_morphing_options(parser: argparse.ArgumentParser) -> None:
    """How many tokens remain, after how many iterations."""
    group = parser.add_argument_group('morphing')
    group.add_argument(
        '--num-morphed',
        type=int,
        metavar='N_M',
        help='tokens that remain (default: half of them, 98 of 196)',
    )
    group.add_argument(
        '--num-iters',
        type=int,
        default=7,
        metavar='K',
        help='iterations of bipartite matching (default: %(default)s)',
    )


def load_generator(args: argparse.Namespace) -> OpenCLIPGenerator:
    """Build the image tower alone of the chosen CLIP."""
    pretrained = None if args.random_weights else args.pretrained
    return OpenCLIPGenerator(
        args.model, pretrained, args.model_config, random_weights=args.random_weights
    ).to(args.device)


def load_classes(args: argparse.Namespace, folder: Path) -> ClassNames:
    """The chosen class list.

    Args:
        args: With ``classes``.
        folder: Where the images lie, for ``--classes folders``.

    Raises:
        FileNotFoundError: If the list, or a sub-folder, is missing.
        ValueError: If the list is not usable, or the folders give one class alone.
    """
    if args.classes == 'imagenet':
        return ClassNames.imagenet()
    if args.classes == 'folders':
        return _classes_of_folders(folder)
    return ClassNames.from_file(args.classes)


def _classes_of_folders(folder: Path) -> ClassNames:
    """Those that hold the images; of one alone, those beside it are classes, too."""
    parents = {image.absolute().parent for image in find_images(folder)}
    if len(parents) == 1:
        parents = {p for p in next(iter(parents)).parent.iterdir() if p.is_dir()}
    names = sorted({parent.name for parent in parents})
    if len(names) < 2:
        raise ValueError(
            f'--classes folders finds one class alone, {names[0]!r}, which is always '
            'right. Name the classes in a file.'
        )
    return ClassNames([name.replace('_', ' ') for name in names], names)


def load_templates(args: argparse.Namespace) -> list:
    """The chosen sentences.

    Raises:
        ValueError: If one has no place for the name.
    """
    sets = {
        'openai': open_clip.OPENAI_IMAGENET_TEMPLATES,
        'simple': open_clip.SIMPLE_IMAGENET_TEMPLATES,
    }
    if len(args.templates) == 1 and args.templates[0] in sets:
        return list(sets[args.templates[0]])
    for template in args.templates:
        if '{}' not in template:
            raise ValueError(
                f'--templates: {template!r} has no {{}} for the class name.'
            )
    return args.templates


def load_zero_shot(
    args: argparse.Namespace, classes: ClassNames
) -> tuple[ZeroShotCLIP, Tensor, int]:
    """The chosen CLIP, the classes' embeddings (C, D), and N_m.

    Raises:
        FileNotFoundError: If the model is not there.
        ValueError: If an option does not fit the model.
    """
    templates = load_templates(args)
    pretrained = None if args.random_weights else args.pretrained
    clip = ZeroShotCLIP(args.model, pretrained, args.model_config, args.random_weights)
    classifier = clip.to(args.device).classifier(
        classes.names, templates, progress=len(classes) * len(templates) > 1000
    )
    half = clip.grid_size[0] * clip.grid_size[1] // 2
    return clip, classifier, half if args.num_morphed is None else args.num_morphed


def picture_name(image: Path, taken: set[str]) -> str:
    """``FOLDER_NAME.png``, numbered where that is taken; takes it."""
    stem = f'{image.absolute().parent.name}_{image.stem}'
    name, number = f'{stem}.png', 2
    while name in taken:
        name, number = f'{stem}_{number}.png', number + 1
    taken.add(name)
    return name
