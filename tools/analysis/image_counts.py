"""How many images are enough: pre-train on fewer and fewer, for as many steps each.

    python tools/analysis/image_counts.py CONFIG PROBE_CONFIG --images 200 2000 20000 \
        --steps 5000 --out work_dirs/image_counts

CONFIG is any config of pre-training; PROBE_CONFIG one of classification with the same
backbone and labelled images, by which tools/evaluate_features.py measures k-NN and
linear probe, also of a random start. Images are drawn by the seed from CONFIG's, so
that the fewer are among the more. Interrupted, it goes on where it was.
"""

import argparse
import json
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import mmdtm.plugin  # noqa: F401  isort: skip
from mmengine.config import Config, DictAction
from mmengine.registry import DATASETS, init_default_scope
from rich.console import Console

from mmdtm.cli.scripts import script, script_parser
from mmdtm.hub import get_config
from mmdtm.io import read_json, write_text
from mmdtm.process_pool import Job, ProcessPool
from mmdtm.report.text import markdown_table, spread_text
from mmdtm.training_log import read_training_log

TOOLS = Path(__file__).resolve().parents[1]
VALUES = dict(loss='loss', knn_top1='k-NN', linear_top1='linear probe')


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = script_parser(__doc__)
    add = parser.add_argument
    add('config', help='of pre-training')
    add('probe', help='classification config with the backbone and labelled images')
    add('--images', nargs='+', type=int, required=True, metavar='NUMBER')
    add('--steps', type=int, required=True, help='of each run')
    add('--warm-up', type=float, default=0.1, help='share of the steps')
    add('--seeds', nargs='+', type=int, default=[0])
    text = 'labelled training images of each class that the probes take; all by default'
    add('--images-per-class', type=int, help=text)
    add('--jobs', type=int, default=1, help='runs at once, each with a share of cores')
    add('--out', type=Path, default=Path('work_dirs/image_counts'), help='folder')
    for name, what in (('cfg', 'CONFIG'), ('probe', 'PROBE_CONFIG')):
        text = f"settings in {what}'s place"
        add(f'--{name}-options', nargs='+', default=[], metavar='KEY=VALUE', help=text)
    args = parser.parse_args(argv)
    least = min(*args.images, args.steps - 1, args.jobs, args.images_per_class or 1)
    if least < 1 or not 0 <= args.warm_up < 1:
        parser.error('give numbers of 1 or more, 2 --steps, and --warm-up below 1')
    return args


def read_config(args: argparse.Namespace) -> Config:
    """The config of pre-training as each run has it, but for images and seed.

    Raises:
        ValueError: If a number of images makes no batch.
    """
    cfg = get_config(args.config)
    parsed = argparse.Namespace()
    DictAction([], 'options')(None, parsed, args.cfg_options)
    cfg.merge_from_dict(parsed.options)
    if min(args.images) < cfg.train_dataloader.batch_size:
        raise ValueError(
            f'{min(args.images)} images are fewer than a step takes, '
            f'{cfg.train_dataloader.batch_size}. Leave them out, or give --cfg-options '
            'train_dataloader.batch_size=NUMBER.'
        )
    warm_up = max(1, int(args.warm_up * args.steps))
    cfg.param_scheduler = [
        dict(type='LinearLR', start_factor=1e-3, end=warm_up, by_epoch=False),
        dict(type='CosineAnnealingLR', begin=warm_up, end=args.steps, by_epoch=False),
    ]
    cfg.train_cfg = dict(
        type='ExactIterBasedTrainLoop', max_iters=args.steps, val_interval=args.steps
    )
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=args.steps)
    cfg.default_hooks.logger.update(interval=max(1, args.steps // 20))
    cfg.log_processor = dict(by_epoch=False)
    hooks = cfg.get('custom_hooks') or []
    watching = ('FeatureProbeHook', 'MorphingVisualHook')  # by epochs
    cfg.custom_hooks = [hook for hook in hooks if hook.type not in watching]
    return cfg


def list_paths(cfg: Config, most: int) -> list[str]:
    """The training images of a config, absolute.

    Raises:
        ValueError: If there are fewer than the most that are asked for.
    """
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    paths = [
        os.path.abspath(dataset.get_data_info(index)['img_path'])
        for index in range(len(dataset))
    ]
    if len(paths) < most:
        raise ValueError(
            f'There are {len(paths)} training images, fewer than the {most} that are '
            'asked for. Lower --images.'
        )
    return paths


class Comparison:
    """The runs, as jobs of a process pool."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.cfg = args, read_config(args)
        self.paths = list_paths(self.cfg, max(args.images))

    def name(self, images: int, seed: int) -> str:
        """Of a run's folder."""
        return f'{images or "random"}-seed{seed}'

    def write_config(self, images: int, seed: int) -> Path:
        """A run's config and the list of its images, in its folder."""
        folder = self.args.out / self.name(images, seed)
        folder.mkdir(parents=True, exist_ok=True)
        chosen = random.Random(seed).sample(self.paths, len(self.paths))[:images]
        listed = folder / 'images.txt'
        write_text(listed, '\n'.join(sorted(chosen)) + '\n')
        cfg = Config(self.cfg.to_dict())
        cfg.train_dataloader.dataset = dict(
            type='UnlabeledImages',
            ann_file=str(listed.resolve()),
            pipeline=cfg.train_dataloader.dataset.pipeline,
        )
        cfg.randomness = dict(cfg.get('randomness') or {}, seed=seed)
        cfg.dump(folder / 'config.py')
        return folder / 'config.py'

    def jobs(self) -> Iterator[Job]:
        """Each run and its probes; 0 images are a random start."""
        args = self.args
        for seed in args.seeds:
            for images in (0, *args.images):
                name, needs, checkpoint = self.name(images, seed), [], []
                folder, title = args.out / name, f'{images} images, seed {seed}'
                if images:
                    command = [sys.executable, TOOLS / 'train.py']
                    command += [self.write_config(images, seed), '--work-dir', folder]
                    checkpoint = [folder / f'iter_{args.steps}.pth']
                    yield Job(name, command, title, makes=checkpoint, seconds=300)
                    needs = [name]
                command = [sys.executable, TOOLS / 'evaluate_features.py', args.probe]
                command += [*checkpoint, '--seed', seed, '--out', folder / 'probe.json']
                if args.images_per_class:
                    command += ['--images-per-class', args.images_per_class]
                if args.probe_options:
                    command += ['--cfg-options', *args.probe_options]
                command, made = [*map(str, command)], [folder / 'probe.json']
                yield Job(f'{name}-probe', command, title, needs, makes=made)

    def collect(self) -> list[dict]:
        """What the finished runs say: loss of the last twentieth, and the probes."""
        found = []
        for seed in self.args.seeds:
            for images in (0, *self.args.images):
                folder = self.args.out / self.name(images, seed)
                if not (folder / 'probe.json').exists():
                    continue
                row: dict = dict(images=images, seed=seed)
                if images:
                    losses = read_training_log(folder).series('train', 'loss')[1]
                    row['loss'] = losses[-1]
                found.append(row | read_json(folder / 'probe.json')['metrics'])
        return found


def write_results(rows: list[dict], args: argparse.Namespace) -> str:
    """Write image_counts.json and .md; the table."""
    settings = {k: v for k, v in vars(args).items() if k not in ('out', 'jobs')}
    content = dict(settings=settings, runs=rows)
    write_text(args.out / 'image_counts.json', json.dumps(content, indent=1) + '\n')
    lines = []
    for images in (0, *args.images):
        runs = [row for row in rows if row['images'] == images]
        cells = [f'{images:,}' if images else 'none, random start', str(len(runs))]
        for key in VALUES:
            values = [row[key] for row in runs if key in row]
            cells.append(spread_text(values, 3 if key == 'loss' else 1))
        lines.append(cells)
    header = ['images', 'runs', *VALUES.values()]
    table = '\n'.join(markdown_table(header, lines)) + '\n'
    write_text(args.out / 'image_counts.md', table)
    return table


@script
def main(argv: list[str] | None = None) -> int:
    """Run what the command line asks for; 1 if a run failed."""
    args, console = parse_args(argv), Console()
    comparison, failed = Comparison(args), 0
    threads = max(1, (os.cpu_count() or 1) // args.jobs)
    places = [dict(OMP_NUM_THREADS=str(threads))] * args.jobs
    if 'OMP_NUM_THREADS' in os.environ:
        places = [{}] * args.jobs
    with ProcessPool([*comparison.jobs()], args.out, places) as pool:
        for job, problem in pool.run(console):
            if problem:
                failed += 1
                console.print(f'{job.name} failed, {problem} ({pool.log(job.name)})')
            write_results(comparison.collect(), args)
    console.print(write_results(comparison.collect(), args), markup=False)
    return int(failed > 0)


if __name__ == '__main__':
    sys.exit(main())
