"""k-NN and a short linear probe on the frozen features of a checkpoint.

tools/evaluate_features.py configs/linear_probe/dtm_vit-b_50e_in1k.py CKPT.pth

The config, any classification config, gives the backbone and the data; its
training images serve with the pipeline of testing. No training: minutes
instead of days. Without a checkpoint the random start is evaluated, to
compare with.
"""

import argparse
import json
from functools import partial
from pathlib import Path

from mmdtm.engine.launch import load_config

import mmdtm.plugin  # noqa: F401  isort: skip
import torch
from mmengine.config import ConfigDict, DictAction
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from mmdtm.cli.scripts import script_parser
from mmdtm.evaluation.feature_probe import probe_features
from mmdtm.evaluation.features import build_loader
from mmdtm.evaluation.frozen import FrozenBackbone, load_backbone
from mmdtm.io import write_text


def parse_args() -> argparse.Namespace:
    parser = script_parser(__doc__)
    add = parser.add_argument
    add('config', help='classification config file')
    text = 'pre-trained or fine-tuned; none: random start'
    add('checkpoint', nargs='?', help=text)
    add('--data-root', help="instead of the config's, for both splits")
    text = 'use so many training images of each class'
    add('--images-per-class', type=int, help=text)
    add('--k', type=int, default=20, help='neighbours')
    add('--temperature', type=float, default=0.07, help='of their votes')
    add('--l2', type=float, default=1e-3, help="the linear probe's penalty")
    add('--max-iter', type=int, default=100, help='L-BFGS iterations')
    add('--batch-size', type=int, help="instead of the config's")
    add('--seed', type=int, default=0, help='of a random start')
    add('--device', help='cuda, cpu, ...; cuda where there is one')
    add('--out', type=Path, help='write the values there as JSON')
    options = dict(action=DictAction, default={}, metavar='KEY=VALUE')
    add('--cfg-options', nargs='+', **options)
    args = parser.parse_args()
    args.work_dir, args.launcher, args.local_rank = None, 'none', 0
    return args


def build_loaders(cfg: ConfigDict, args: argparse.Namespace, device: str) -> tuple:
    """Loaders of the training and validation images, both with val's pipeline."""
    loaders = []
    for split in ('train', 'val'):
        loader = cfg.val_dataloader.copy()
        loader.dataset = cfg[f'{split}_dataloader'].dataset.copy()
        loader.dataset.pipeline = cfg.val_dataloader.dataset.pipeline
        if args.data_root is not None:
            loader.dataset.data_root = args.data_root
        if args.batch_size is not None:
            loader.batch_size = args.batch_size
        loader.pin_memory = device.startswith('cuda')
        limit = args.images_per_class if split == 'train' else None
        loaders.append(build_loader(loader, limit))
    return loaders


def main() -> None:
    args = parse_args()
    probe = dict(k=args.k, temperature=args.temperature)
    probe |= dict(l2=args.l2, max_iter=args.max_iter)
    device = args.device or ('cuda' if torch.cuda.is_available() else 'cpu')
    cfg = load_config(args)
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    MMLogger.get_instance('mmdtm', log_level='INFO')
    set_random_seed(args.seed)
    train, val = build_loaders(cfg, args, device)
    model = FrozenBackbone(cfg)
    if args.checkpoint is not None:
        load_backbone(model.backbone, args.checkpoint)
    model.to(device).requires_grad_(False)
    model.data_preprocessor.to(device)  # for its inputs; Module.to does not say so

    console = Console()
    total = len(train.dataset) + len(val.dataset)
    with Progress(console=console) as progress:
        task = progress.add_task(f'Features of {total} images', total=total)
        advance = partial(progress.advance, task)
        result = probe_features(model, train, val, **probe, progress=advance)

    source = args.checkpoint or f'random start, seed {args.seed}'
    table = Table(title=f'Frozen features: {source}')
    for name in ('', 'top-1 (%)', 'seconds'):
        table.add_column(name, justify='left' if not name else 'right')
    table.add_row('features', '', f'{result["features_s"]:.1f}')
    for name, key in ((f'k-NN (k={args.k})', 'knn'), ('linear probe', 'linear')):
        table.add_row(name, f'{result[key + "_top1"]:.2f}', f'{result[key + "_s"]:.1f}')
    table.caption = (
        f'learnt from {len(train.dataset)} images, tested on {len(val.dataset)}'
    )
    console.print(table)
    if args.out is not None:
        values = dict(
            kind='linear probe',  # a row for tools/report.py
            name=f'{args.out.absolute().parent.name}/{args.out.stem}',
            metrics={key: result[key] for key in ('linear_top1', 'knn_top1')},
            config=args.config,
            checkpoint=args.checkpoint,
            seed=args.seed,
            train_images=len(train.dataset),
            val_images=len(val.dataset),
            **probe,
            **result,
        )
        write_text(args.out, json.dumps(values, indent=2) + '\n')


if __name__ == '__main__':
    main()
