r"""Image-level accuracy of patch predictions, without and with morphing (Table 1).

For a folder of class folders it prints and writes, for CLIP's image feature and for
its patch tokens without and with morphing,

- zero-shot top-1 (for patches: of the mean of all patches' class probabilities),
- the share of patches whose own class is right,
- top-1 of a linear probe (for patches: on the mean of all patches' unit-length
  features; with morphing a patch has its group's mean token)::

    python tools/analysis/patch_ensemble.py data/imagenet/val \
        --train data/imagenet/train --model ViT-B-16 --pretrained openai

The probe is fitted to ``--train``; without it, by cross-validation on the folder
itself. Images that cannot be read are named, left out and counted.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from clip_options import (
    add_class_options,
    add_clip_options,
    add_morphing_options,
    load_classes,
    load_clip,
    load_templates,
    num_morphed,
)
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader

from mmdtm.evaluation.labelled_images import (
    ClassNames,
    LabelledImages,
    find_images,
    label_images,
)
from mmdtm.evaluation.linear_probe import linear_probe_predict
from mmdtm.evaluation.patch_zero_shot import (
    ZeroShotCLIP,
    ensemble,
    morph_tokens,
    patch_features,
    patch_logits,
)
from mmdtm.io import write_text

WAYS = {
    'image': "CLIP's image feature",
    'without': 'patches',
    'with': 'patches, morphed',
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('data', type=Path, help='folder of class folders to evaluate')
    parser.add_argument(
        '--train', type=Path, help='folder of class folders to fit the probes to'
    )
    parser.add_argument('--no-probe', action='store_true', help='zero-shot alone')
    parser.add_argument(
        '--l2',
        type=float,
        default=1e-3,
        help="weight of the probes' penalty (default: %(default)s)",
    )
    parser.add_argument(
        '--folds',
        type=int,
        default=5,
        help='of the cross-validation where there is no --train (default: %(default)s)',
    )
    parser.add_argument(
        '--batch-size', type=int, default=64, help='default: %(default)s'
    )
    parser.add_argument(
        '--workers',
        type=int,
        default=2,
        help='processes that read images (default: %(default)s)',
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('work_dirs/patch_ensemble.json'),
        help='JSON to write (default: %(default)s)',
    )
    add_clip_options(parser)
    add_class_options(parser)
    add_morphing_options(parser)
    args = parser.parse_args(argv)
    if args.folds < 2 or args.batch_size < 1:
        parser.error('--folds must be at least 2 and --batch-size at least 1.')
    return args


@dataclass
class Collected:
    """What a pass over n images gives, for each of ``WAYS``.

    Attributes:
        labels: int64 (n,).
        features: float32 (n, D) each, for the probes.
        predicted: int64 (n,) each, zero-shot.
        right: Share of right patches of each image, (n,) each; patches alone.
        unreadable: One message for each image left out.
    """

    labels: Tensor
    features: dict[str, Tensor]
    predicted: dict[str, Tensor]
    right: dict[str, Tensor]
    unreadable: list[str]


@torch.no_grad()
def collect(
    clip: ZeroShotCLIP,
    loader: DataLoader,
    classifier: Tensor,
    remain: int,
    num_iters: int,
    description: str,
    console: Console,
) -> Collected:
    """Run CLIP over labelled images.

    Args:
        clip: On its device.
        loader: Of ``LabelledImages``.
        classifier: (C, D), see ``ZeroShotCLIP.classifier``.
        remain: N_m.
        num_iters: k.
        description: Of the progress bar.
        console: Where it shows.

    Returns:
        Features and predictions, on the CPU.

    Raises:
        ValueError: If no image could be read, or N_m cannot be reached.
    """
    labels, unreadable = [], []
    features: dict[str, list] = {way: [] for way in WAYS}
    predicted: dict[str, list] = {way: [] for way in WAYS}
    right: dict[str, list] = {'without': [], 'with': []}
    for images, targets, messages in track(loader, description, console=console):
        for message in messages:
            console.print(f'left out: {message}', style='yellow', markup=False)
        unreadable += messages
        if images is None:
            continue
        feature, tokens = clip(images.to(classifier.device))
        labels.append(targets)
        targets = targets.to(classifier.device)
        features['image'].append(feature.cpu())
        predicted['image'].append(patch_logits(feature, classifier).argmax(-1).cpu())
        merged = morph_tokens(tokens, remain, num_iters)
        for way, assignment in (('without', None), ('with', merged)):
            patches = patch_features(tokens, assignment)
            logits = patch_logits(patches, classifier, clip.scale)
            features[way].append(patches.mean(dim=1).cpu())
            predicted[way].append(ensemble(logits).argmax(-1).cpu())
            hits = logits.argmax(-1) == targets[:, None]
            right[way].append(hits.float().mean(dim=1).cpu())
    if not labels:
        raise ValueError('None of the images could be read.')

    def joined(parts: dict[str, list]) -> dict[str, Tensor]:
        return {way: torch.cat(values) for way, values in parts.items()}

    return Collected(
        torch.cat(labels),
        joined(features),
        joined(predicted),
        joined(right),
        unreadable,
    )


def fold_of_each(labels: Tensor, folds: int) -> Tensor:
    """Deal each class's images to the folds in turn.

    Args:
        labels: int64 (n,).
        folds: How many.

    Returns:
        int64 (n,), in [0, folds).
    """
    fold = torch.empty_like(labels)
    for label in labels.unique():
        members = (labels == label).nonzero().squeeze(1)
        fold[members] = torch.arange(len(members)) % folds
    return fold


def probe(
    way: str,
    evaluated: Collected,
    train: Collected | None,
    folds: int,
    l2: float,
    device: str = 'cpu',
) -> float:
    """Top-1 of a linear probe, in percent.

    Args:
        way: Of ``WAYS``.
        evaluated: The images to classify.
        train: The images to fit to; None cross-validates on ``evaluated``.
        folds: Of the cross-validation.
        l2: See ``fit_linear_probe``.
        device: To fit on.

    Raises:
        ValueError: If there are too few images or classes.
    """
    vectors, labels = evaluated.features[way].to(device), evaluated.labels.to(device)
    if train is not None:
        predicted = linear_probe_predict(
            train.features[way].to(device), train.labels.to(device), vectors, l2
        )
        return percent(predicted == labels)
    fewest = int(labels.unique(return_counts=True)[1].min())
    if fewest < 2:
        raise ValueError(
            'cross-validation needs at least two images of each class; give --train'
        )
    fold = fold_of_each(labels, folds).to(device)
    predicted = torch.empty_like(labels)
    for index in fold.unique():
        held = fold == index
        predicted[held] = linear_probe_predict(
            vectors[~held], labels[~held], vectors[held], l2
        )
    return percent(predicted == labels)


def percent(hits: Tensor) -> float:
    return 100 * hits.float().mean().item()


def make_loader(
    folder: Path,
    classes: ClassNames,
    clip: ZeroShotCLIP,
    args: argparse.Namespace,
    console: Console,
) -> tuple[DataLoader, list[str]]:
    """Batches of a folder's images, and messages about unknown class folders.

    Raises:
        FileNotFoundError: If there is no image.
        ValueError: If no folder's name is a class.
    """
    items, messages = label_images(find_images(folder), classes)
    for message in messages:
        console.print(message, style='yellow', markup=False)
    if not items:
        raise ValueError(f"{folder}: no folder's name is one of the classes.")
    loader = DataLoader(
        LabelledImages(items, clip.transform),
        args.batch_size,
        num_workers=args.workers,
        collate_fn=LabelledImages.collate,
    )
    return loader, messages


def evaluate(args: argparse.Namespace, console: Console) -> dict:
    """Do all of it.

    Returns:
        The results as they are written.

    Raises:
        FileNotFoundError: If an input or the model is not there.
        ValueError: If an option does not fit, or nothing can be evaluated.
    """
    classes = load_classes(args, args.data)
    templates = load_templates(args)
    clip = load_clip(args)
    remain = num_morphed(args, clip)
    loader, unknown = make_loader(args.data, classes, clip, args, console)
    classifier = clip.classifier(
        classes.names, templates, progress=len(classes) * len(templates) > 1000
    )
    settings = (classifier, remain, args.num_iters)
    evaluated = collect(clip, loader, *settings, 'evaluated images', console)
    unreadable = list(evaluated.unreadable)
    train = None
    if args.train and not args.no_probe:
        loader, more = make_loader(args.train, classes, clip, args, console)
        train = collect(clip, loader, *settings, 'training images', console)
        unknown += more
        unreadable += train.unreadable
    results = {}
    for way in WAYS:
        result = dict(zero_shot=percent(evaluated.predicted[way] == evaluated.labels))
        if way in evaluated.right:
            result['right_patches'] = 100 * evaluated.right[way].mean().item()
        results[way] = result
    probed = None if args.no_probe else 'train' if train else f'{args.folds} folds'
    if probed:
        try:
            for way in track(WAYS, 'linear probes', console=console):
                results[way]['linear_probe'] = probe(
                    way, evaluated, train, args.folds, args.l2, args.device
                )
        except ValueError as error:
            console.print(f'no linear probe: {error}', style='yellow', markup=False)
            probed = None
    return dict(
        kind='patch ensemble',  # rows for tools/report.py
        rows=report_rows(args, results),
        data=str(args.data),
        train=str(args.train) if train else None,
        model=args.model,
        pretrained='random' if args.random_weights else args.pretrained,
        num_tokens=clip.grid_size[0] * clip.grid_size[1],
        num_morphed=remain,
        num_iters=args.num_iters,
        classes=len(classes),
        images=len(evaluated.labels),
        train_images=len(train.labels) if train else None,
        probe=probed,
        unreadable=unreadable,
        unknown_folders=unknown,
        results=results,
    )


def report_rows(args: argparse.Namespace, results: dict) -> list[dict]:
    """The results as docs/report.md has them, a row for each of ``WAYS``."""
    run = f'{args.out.absolute().parent.name}/{args.out.stem}'
    # By which the report knows the paper's figures: its CLIP on ImageNet.
    clip = f'{args.model.removesuffix("-quickgelu")}_{args.pretrained}_{args.classes}'
    keys = {
        'zero_shot': 'zero-shot top-1 (%)',
        'right_patches': 'right patches (%)',
        'linear_probe': 'linear_top1',
    }
    return [
        dict(
            name=f'{run}: {title}',
            config=f'patches_{clip}_{way}',
            metrics={keys[key]: value for key, value in results[way].items()},
        )
        for way, title in WAYS.items()
    ]


def show(found: dict, console: Console) -> None:
    """Print the results as a table."""
    table = Table(
        title=f'{found["model"]}, {found["images"]} images, '
        f'{found["classes"]} classes; {found["num_tokens"]} tokens, '
        f'{found["num_morphed"]} after morphing; %'
    )
    table.add_column('')
    for column in ('zero-shot top-1', 'right patches', 'linear probe top-1'):
        table.add_column(column, justify='right')
    for way, title in WAYS.items():
        table.add_row(
            title,
            *(
                f'{found["results"][way][key]:.2f}'
                if key in found['results'][way]
                else '-'
                for key in ('zero_shot', 'right_patches', 'linear_probe')
            ),
        )
    console.print(table)
    if found['unreadable']:
        console.print(
            f'{len(found["unreadable"])} image(s) could not be read and are left out.'
        )


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    console = Console()
    try:
        found = evaluate(args, console)
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    show(found, console)
    write_text(args.out, json.dumps(found, indent=1))
    console.print(f'wrote {args.out}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
