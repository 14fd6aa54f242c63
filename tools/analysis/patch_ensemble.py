r"""Image-level accuracy of patch predictions, without and with morphing (Table 1).

Section 3 of the paper predicts class scores for each patch and averages them over the
image; with morphing, tokens are averaged in groups before. That leaves two readings of
the scores and two of the average, and all four are printed side by side::

    python tools/analysis/patch_ensemble.py data/imagenet/val \
        --train data/imagenet/train --model ViT-B-16 --pretrained openai

- scores: 'logits' are the similarities with the class texts, 'probabilities' their
  softmax at CLIP's own temperature;
- average: over 'groups' a morphed token counts once, over 'patches' as often as it has
  patches. Without morphing the two are the same.

We read the paper as logits averaged over groups (docs/analysis.md has the reasons);
--scores and --average choose another reading for the results that other tools take up.
The linear probe learns from the mean of an image's token features, which for a linear
layer gives the mean of the tokens' logits. It is fitted to --train; without it, by
cross-validation on the folder itself. Images that cannot be read are named, left out
and counted.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import torch
from clip_options import (
    add_class_options,
    add_clip_options,
    add_morphing_options,
    load_classes,
    load_zero_shot,
)
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader

from mmdtm.cli.scripts import script, script_parser
from mmdtm.evaluation.labelled_images import (
    ClassNames,
    LabelledImages,
    find_images,
    label_images,
)
from mmdtm.evaluation.linear_probe import (
    fit_linear_probe,
    fit_sgd_probe,
    linear_probe_predict,
)
from mmdtm.evaluation.patch_zero_shot import (
    SCORES,
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
AVERAGES = ('patches', 'groups')
PAPERS = ('logits', 'groups')
# Morphed tokens averaged by groups, where 'with' averages them by patches.
GROUPS = 'with, groups'


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = script_parser(__doc__)
    add = parser.add_argument
    add('data', type=Path, help='folder of class folders to evaluate')
    add('--train', type=Path, help='folder of class folders to fit the probes to')
    add('--batch-size', type=int, default=64, help='images')
    add('--workers', type=int, default=2, help='processes that read images')
    out = Path('work_dirs/patch_ensemble.json')
    add('--out', type=Path, default=out, help='JSON to write')
    add('--epochs', type=int, default=25, help='of the SGD probe, table 1 has 25')
    text = 'of the SGD probe at the start, per 256 images'
    add('--lr', type=float, default=0.1, help=text)
    add('--seed', type=int, default=0, help="of the SGD probe's order of the images")
    add('--l2', type=float, default=1e-3, help="weight of the L-BFGS probe's penalty")
    text = 'of the cross-validation where there is no --train'
    add('--folds', type=int, default=5, help=text)
    add('--scores', choices=SCORES, default='logits', help='what is averaged')
    add('--average', choices=AVERAGES, default='groups', help='over what')
    text = "'sgd' trains as table 1's probe; 'lbfgs' is the fast way, which solves "
    text += "the same convex problem; 'none' is zero-shot alone"
    add('--probe', choices=('sgd', 'lbfgs', 'none'), default='sgd', help=text)
    add_clip_options(parser)
    add_class_options(parser)
    add_morphing_options(parser)
    args = parser.parse_args(argv)
    if args.folds < 2 or args.batch_size < 1 or args.epochs < 1:
        parser.error(
            '--folds must be at least 2, --batch-size and --epochs at least 1.'
        )
    return args


@dataclass
class Collected:
    """What a pass over n images gives for each view: ``WAYS`` and ``GROUPS``.

    Attributes:
        labels: int64 (n,).
        features: float32 (n, D) of each view, the means of its unit-length features.
        predicted: int64 (n,), zero-shot, of each view and kind of scores.
        right: Share of right patches of each image, (n,) each; patches alone.
        unreadable: One message for each image left out.
    """

    labels: Tensor
    features: dict[str, Tensor]
    predicted: dict[tuple[str, str], Tensor]
    right: dict[str, Tensor]
    unreadable: list[str]


@torch.no_grad()
def collect(
    clip: ZeroShotCLIP,
    loader: DataLoader,
    classifier: Tensor,
    remain: int,
    num_iters: int,
    console: Console,
) -> Collected:
    """Run CLIP over labelled images, morphing to ``remain`` (N_m) tokens.

    Raises:
        ValueError: If no image could be read, or N_m cannot be reached.
    """
    labels, unreadable = [], []
    features, predicted, right = {}, {}, {}
    for images, targets, messages in track(loader, 'images', console=console):
        for message in messages:
            console.print(f'left out: {message}', style='yellow', markup=False)
        unreadable += messages
        if images is None:
            continue
        labels.append(targets)
        feature, tokens = clip(images.to(classifier.device))
        targets = targets.to(classifier.device)
        merged = morph_tokens(tokens, remain, num_iters)
        for view, vectors in {
            'image': feature[:, None],
            'without': patch_features(tokens),
            'with': patch_features(tokens, merged),
            GROUPS: patch_features(merged.morph(tokens)),
        }.items():
            features.setdefault(view, []).append(vectors.mean(dim=1).cpu())
            logits = patch_logits(vectors, classifier, clip.scale)
            for scores in SCORES:
                said = ensemble(logits, scores).argmax(-1).cpu()
                predicted.setdefault((view, scores), []).append(said)
            if view in ('without', 'with'):
                hits = logits.argmax(-1) == targets[:, None]
                right.setdefault(view, []).append(hits.float().mean(dim=1).cpu())
    if not labels:
        raise ValueError('None of the images could be read. Give a folder of images.')
    joined = [
        {key: torch.cat(values) for key, values in parts.items()}
        for parts in (features, predicted, right)
    ]
    return Collected(torch.cat(labels), *joined, unreadable)


def fold_of_each(labels: Tensor, folds: int) -> Tensor:
    """Deal each class's images to the folds in turn: int64 (n,) in [0, folds).

    Raises:
        ValueError: If a class has one image alone.
    """
    fold = torch.empty_like(labels)
    for label in labels.unique():
        members = (labels == label).nonzero().squeeze(1)
        if len(members) < 2:
            raise ValueError(
                'Cross-validation needs at least two images of each class. Give '
                '--train, or --probe none.'
            )
        fold[members] = torch.arange(len(members)) % folds
    return fold


def probe_all(
    args: argparse.Namespace,
    evaluated: Collected,
    train: Collected | None,
    console: Console,
) -> dict[str, float]:
    """Top-1 in percent of a linear probe of each view, fitted to ``train`` or in folds.

    Raises:
        ValueError: If there are too few images or classes.
    """
    fit = partial(fit_linear_probe, l2=args.l2)
    if args.probe == 'sgd':
        recipe = dict(epochs=args.epochs, lr=args.lr, seed=args.seed)
        fit = partial(fit_sgd_probe, **recipe)
    bank = train or evaluated
    labels = bank.labels.to(args.device)
    # (learned from, classified) of each fit.
    parts = [(slice(None), slice(None))]
    if train is None:
        fold = fold_of_each(labels.cpu(), args.folds).to(args.device)
        parts = [(fold != index, fold == index) for index in fold.unique()]
    found = {view: torch.empty_like(evaluated.labels) for view in evaluated.features}
    fits = list(product(found, parts))
    for view, (known, asked) in track(fits, 'linear probes', console=console):
        vectors, queries = (
            part.features[view].to(args.device) for part in (bank, evaluated)
        )
        found[view][asked] = linear_probe_predict(
            vectors[known], labels[known], queries[asked], fit
        ).cpu()
    return {view: percent(said == evaluated.labels) for view, said in found.items()}


def percent(hits: Tensor) -> float:
    return 100 * hits.float().mean().item()


def find_labelled(
    folder: Path, classes: ClassNames, console: Console
) -> tuple[list[tuple[Path, int]], list[str]]:
    """A folder's images with their classes, and messages about unknown folders."""
    items, messages = label_images(find_images(folder), classes)
    for message in messages:
        console.print(message, style='yellow', markup=False)
    if not items:
        raise ValueError(
            f"{folder}: no folder's name is one of the classes. Choose them with "
            '--classes.'
        )
    return items, messages


def evaluate(args: argparse.Namespace, console: Console) -> dict:
    """All of it: the results as they are written."""
    classes = load_classes(args, args.data)
    train = args.train if args.probe != 'none' else None
    labelled = [
        find_labelled(folder, classes, console)
        for folder in (args.data, train)
        if folder
    ]
    clip, classifier, remain = load_zero_shot(args, classes)
    options = dict(num_workers=args.workers, collate_fn=LabelledImages.collate)
    passes = []
    for items, _ in labelled:
        images = LabelledImages(items, clip.transform)
        loader = DataLoader(images, args.batch_size, **options)
        passes.append(
            collect(clip, loader, classifier, remain, args.num_iters, console)
        )
    evaluated, fitted = passes[0], passes[1] if train else None
    probed = {}
    if args.probe != 'none':
        try:
            probed = probe_all(args, evaluated, fitted, console)
        except ValueError as error:
            console.print(f'no linear probe: {error}', style='yellow', markup=False)
    found = dict(
        kind='patch ensemble',  # rows for tools/report.py
        data=str(args.data),
        train=str(train) if train else None,
        model=args.model,
        pretrained='random' if args.random_weights else args.pretrained,
        num_tokens=clip.grid_size[0] * clip.grid_size[1],
        num_morphed=remain,
        num_iters=args.num_iters,
        classes=len(classes),
        images=len(evaluated.labels),
        train_images=len(fitted.labels) if fitted else None,
        probe=args.probe if probed else None,
        fitted_to=('train' if train else f'{args.folds} folds') if probed else None,
        unreadable=[message for part in passes for message in part.unreadable],
        unknown_folders=[message for _, part in labelled for message in part],
        scores=args.scores,
        average=args.average,
        results=reading(evaluated, probed, args.scores, args.average),
        readings=[
            dict(scores=scores, average=average)
            | reading(evaluated, probed, scores, average)
            for scores, average in product(SCORES, AVERAGES)
        ],
    )
    return found | dict(rows=report_rows(args, found))


def reading(
    evaluated: Collected, probed: dict[str, float], scores: str, average: str
) -> dict[str, dict[str, float]]:
    """Table 1 in percent, by one reading of its scores and its average.

    The probe has logits alone, so that its values do not depend on ``scores``.
    """
    found = {}
    for way in WAYS:
        view = GROUPS if (way, average) == ('with', 'groups') else way
        hits = evaluated.predicted[view, scores] == evaluated.labels
        found[way] = dict(zero_shot=percent(hits))
        if way in evaluated.right:
            found[way]['right_patches'] = 100 * evaluated.right[way].mean().item()
        if probed:
            found[way]['linear_probe'] = probed[view]
    return found


def report_rows(args: argparse.Namespace, found: dict) -> list[dict]:
    """The results as docs/report.md has them, a row for each of ``WAYS``."""
    run = f'{args.out.absolute().parent.name}/{args.out.stem}'
    # By these names the report knows the paper's values: its CLIP on ImageNet, half
    # of the tokens, its reading and, of a probe, its length.
    clip = args.model.removesuffix('-quickgelu')
    parts = [clip, found['pretrained'], args.classes]
    suffix = ''
    if (args.scores, args.average) != PAPERS:
        suffix = f'_{args.scores}_{args.average}'
    if 2 * found['num_morphed'] != found['num_tokens']:
        suffix += f'_{found["num_morphed"]}'
    probe = 'linear_top1'
    if (args.probe, args.epochs, found['fitted_to']) != ('sgd', 25, 'train'):
        length = f'{args.epochs} epochs' if args.probe == 'sgd' else 'L-BFGS'
        probe = f'linear top-1 ({length}, {found["fitted_to"]})'
    keys = dict(zero_shot='zero-shot top-1 (%)', right_patches='right patches (%)')
    keys['linear_probe'] = probe
    return [
        dict(
            name=f'{run}: {title}',
            config='_'.join(['patches', *parts, way]) + suffix,
            metrics={keys[key]: value for key, value in found['results'][way].items()},
        )
        for way, title in WAYS.items()
    ]


def show(found: dict, console: Console) -> None:
    """Print the four readings as a table."""
    table = Table(
        title=f'{found["model"]}, {found["images"]} images, {found["classes"]} '
        f'classes; {found["num_tokens"]} tokens, {found["num_morphed"]} after '
        'morphing; top-1 in %'
    )
    for column in ('scores', 'average'):
        table.add_column(column)
    for task, way in product(('zero-shot', 'probe'), ('patches', 'morphed')):
        table.add_column(f'{task}\n{way}', justify='right')

    def cell(result: dict, key: str) -> str:
        return f'{result[key]:.2f}' if key in result else '-'

    for row in found['readings']:
        papers = ' *' * ((row['scores'], row['average']) == PAPERS)
        tasks = ['zero_shot']
        if row['scores'] == 'logits':  # which alone a linear probe has
            tasks.append('linear_probe')
        cells = [cell(row[way], t) for t, way in product(tasks, ('without', 'with'))]
        table.add_row(row['scores'], row['average'] + papers, *cells)
    image, without, morphed = found['results'].values()
    table.caption = (
        "* as we read the paper.\nCLIP's image feature: zero-shot "
        f'{cell(image, "zero_shot")}, probe {cell(image, "linear_probe")}.\nRight '
        f'patches: {cell(without, "right_patches")} % without, '
        f'{cell(morphed, "right_patches")} % with morphing.'
    )
    console.print(table)
    if found['unreadable']:
        console.print(
            f'{len(found["unreadable"])} image(s) could not be read and are left out.'
        )


@script
def main(argv: list[str] | None = None) -> None:
    args, console = parse_args(argv), Console()
    found = evaluate(args, console)
    show(found, console)
    write_text(args.out, json.dumps(found, indent=1))
    console.print(f'wrote {args.out}')


if __name__ == '__main__':
    sys.exit(main())
