"""The whole path on the embedded world: no GPU, no download of data or weights.

Draws scenes, trains a small CLIP on their captions, pre-trains a small ViT
against it with DTM and with the token-wise baseline, and measures both beside a
random start: linear probe, k-NN, fine-tuning, and segmentation with UperNet.
Every part is the one that trains the big models, in configs/toy/. Writes
work_dirs/quickstart/: the table as results.md and results.json, loss_curves.png,
morphing.png, segmentation.png, and the report of all its runs.

    make quickstart
    .venv/bin/python tools/toy/quickstart.py --seeds 3

Interrupted, it goes on where it was: finished stages are not repeated.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

from mmengine.config import Config
from rich.console import Console
from rich.table import Table
from stages import Stage, StageError, Stages, clock

from mmdtm.report import build_report, write_result

ROOT = Path(__file__).resolve().parents[2]
TOY, TOOLS, CONFIGS = ROOT / 'tools/toy', ROOT / 'tools', ROOT / 'configs/toy'
PYTHON = sys.executable

# What is compared, in the order of the table, and how it is pre-trained.
STARTS = {'random': 'random start', 'token-wise': 'token-wise', 'dtm': 'DTM'}
PRETRAIN = {name: CONFIGS / f'{name}_vit-toy.py' for name in ('dtm', 'token-wise')}
FINETUNE, SEGMENT = CONFIGS / 'finetune_vit-toy.py', CONFIGS / 'upernet_vit-toy.py'

FIGURES = {
    'linear_top1': 'linear probe\ntop-1 (%)',
    'knn_top1': 'k-NN\ntop-1 (%)',
    'finetune_top1': 'fine-tuned\ntop-1 (%)',
    'mIoU': 'UperNet\nmIoU (%)',
    'pretrain_seconds': 'pre-training\n(s)',
}

PICTURES = {
    'loss_curves.png': 'Pre-training losses',
    'morphing.png': 'Images, their block masks and their morphed groups',
    'segmentation.png': 'Scenes, the truth and the predicted masks',
}


class Plan:
    """The stages of one seed.

    Args:
        args: The command line.
        seed: Of the CLIP, the pre-training and everything after it.
    """

    def __init__(self, args: argparse.Namespace, seed: int) -> None:
        self.args, self.seed = args, seed
        self.folder = args.work_dir / f'seed{seed}'
        self.suffix = f', seed {seed}' if args.seeds > 1 else ''

    def name(self, stage: str) -> str:
        return f'seed{self.seed}-{stage}'

    def stage(self, name: str, title: str, command: list, seconds: float, **kwargs):
        kwargs['needs'] = [self.name(n) if n != 'data' else n for n in kwargs['needs']]
        return Stage(
            self.name(name), title + self.suffix, list(map(str, command)), seconds,
            **kwargs,
        )  # fmt: skip

    def train(self, config: Path, work_dir: Path, options: dict, processes: int):
        """Command line and last checkpoint of a training run."""
        length = Config.fromfile(config, import_custom_modules=False).train_cfg
        unit, most = (
            ('epoch', length.max_epochs)
            if 'max_epochs' in length
            else ('iter', length.max_iters)
        )
        if self.args.quick:
            most = 1 if unit == 'epoch' else 10
            options = {f'train_cfg.max_{unit}s': most, **options}
            if unit == 'iter':
                options['train_cfg.val_interval'] = most
                options['default_hooks.checkpoint.interval'] = most
        launch = (
            [TOOLS / 'dist_train.sh', config, processes]
            if processes > 1
            else [PYTHON, TOOLS / 'train.py', config]
        )
        options = {'randomness.seed': self.seed, **options}
        command = [*launch, '--work-dir', work_dir, '--cfg-options']
        command += [f'{key}={value}' for key, value in options.items()]
        return command, work_dir / f'{unit}_{most}.pth'

    def stages(self) -> list[Stage]:
        args, clip = self.args, self.folder / 'clip'
        script = TOY / 'train_clip.py'
        result = [
            self.stage(
                'clip', 'small CLIP',
                [PYTHON, script, '--data', args.data, '--out', clip, '--seed',
                 self.seed, *(['--steps', 10] if args.quick else [])],
                120, needs=['data'], files=[script], makes=[clip / 'metrics.json'],
                all_cores=True,
            )
        ]  # fmt: skip

        checkpoints = {'random': None}
        for start, config in PRETRAIN.items():
            options = {
                'train_dataloader.dataset.data_root': args.data,
                'model.target_generator.pretrained': clip / 'toy.safetensors',
                'model.target_generator.model_config': clip / 'toy.json',
            }
            command, checkpoint = self.train(
                config, self.folder / f'{start}_pretrain', options, processes=2
            )
            checkpoints[start] = checkpoint
            result.append(
                self.stage(
                    start, f'pre-training, {STARTS[start]}', command, 100,
                    needs=['clip'], files=[config, PRETRAIN['dtm']],
                    makes=[checkpoint], all_cores=True,
                )
            )  # fmt: skip

        for start, checkpoint in checkpoints.items():
            out = self.folder / f'{start}_probe.json'
            command = [PYTHON, TOOLS / 'evaluate_features.py', FINETUNE]
            command += [] if checkpoint is None else [checkpoint]
            command += ['--data-root', args.data, '--seed', self.seed, '--out', out]
            result.append(
                self.stage(
                    f'{start}-probe', f'probe and k-NN, {STARTS[start]}', command, 15,
                    needs=['data'] if checkpoint is None else [start],
                    files=[FINETUNE], makes=[out],
                )
            )  # fmt: skip

        for task, title, config, seconds in (
            ('finetune', 'fine-tuning', FINETUNE, 75),
            ('segment', 'segmentation', SEGMENT, 80),
        ):
            for start, checkpoint in checkpoints.items():
                options = {
                    f'{split}_dataloader.dataset.data_root': args.data
                    for split in ('train', 'val', 'test')
                }
                if checkpoint is None:
                    options['model.backbone.init_cfg'] = None
                else:
                    options['model.backbone.init_cfg.checkpoint'] = checkpoint
                command, last = self.train(
                    config, self.folder / f'{start}_{task}', options, processes=1
                )
                result.append(
                    self.stage(
                        f'{start}-{task}', f'{title}, {STARTS[start]}', command,
                        seconds, needs=['data'] if checkpoint is None else [start],
                        files=[config], makes=[last],
                    )
                )  # fmt: skip
        return result

    def figures(self, stages: Stages) -> dict:
        """The table of this seed, from what the stages wrote."""
        from mmdtm.training_log import read_training_log

        clip = json.loads((self.folder / 'clip/metrics.json').read_text())
        rows = {}
        for start in STARTS:
            row = json.loads((self.folder / f'{start}_probe.json').read_text())
            row = {key: row[key] for key in ('linear_top1', 'knn_top1')}
            for key, task, metric in (
                ('finetune_top1', 'finetune', 'accuracy/top1'),
                ('mIoU', 'segment', 'mIoU'),
            ):
                log = read_training_log(self.folder / f'{start}_{task}')
                row[key] = log.val[-1][metric]
            row['pretrain_seconds'] = (
                stages.seconds(self.name(start)) if start in PRETRAIN else 0.0
            )
            rows[start] = row
        return dict(
            seed=self.seed, clip_zero_shot_top1=clip['zero_shot_top1'], starts=rows
        )


def data_stage(args: argparse.Namespace) -> Stage:
    script = TOY / 'draw_scenes.py'
    command = [PYTHON, str(script), '--out', str(args.data), '--force']
    if args.quick:
        command += ['--num-train', '256', '--num-val', '64']
    return Stage(
        'data', 'drawing the scenes', command, 12, files=[script],
        makes=[args.data / 'meta.json'], all_cores=True,
    )  # fmt: skip


def picture_stage(args: argparse.Namespace, plan: Plan, needs: list[str]) -> Stage:
    script = TOY / 'pictures.py'
    command = [PYTHON, script, plan.folder, '--data', args.data, '--out', args.work_dir]
    return Stage(
        'pictures', 'pictures', list(map(str, command)), 15, needs=needs,
        files=[script], makes=[args.work_dir / name for name in PICTURES],
    )  # fmt: skip


def summarise(tables: list[dict]) -> dict:
    """Mean and, of several seeds, standard deviation of each figure.

    Returns:
        ``{start: {figure: (mean, std or None)}}``.
    """
    summary = {}
    for start in STARTS:
        summary[start] = {}
        for key in FIGURES:
            values = [table['starts'][start][key] for table in tables]
            std = statistics.stdev(values) if len(values) > 1 else None
            summary[start][key] = (statistics.fmean(values), std)
    return summary


def cell(key: str, mean: float, std: float | None) -> str:
    """A figure as the table prints it."""
    digits = 0 if key == 'pretrain_seconds' else 1
    if key == 'pretrain_seconds' and not mean:
        return '–'
    return f'{mean:.{digits}f}' + ('' if std is None else f' ± {std:.{digits}f}')


def caption(args: argparse.Namespace, tables: list[dict]) -> str:
    zero_shot = statistics.fmean(t['clip_zero_shot_top1'] for t in tables)
    seeds = f'mean ± standard deviation of {args.seeds} seeds; ' * (args.seeds > 1)
    quick = ' Cut short by --quick: the figures mean nothing.' * args.quick
    return (
        f'{seeds}10 classes of scenes, so chance is 10 %; the teacher, a small CLIP, '
        f'classifies {zero_shot:.1f} % zero-shot.{quick}'
    )


def write_results(args: argparse.Namespace, tables: list[dict]) -> None:
    """results.json and results.md."""
    summary = summarise(tables)
    figures = dict(
        quick=args.quick, seeds=[table['seed'] for table in tables], figures=tables
    )
    (args.work_dir / 'results.json').write_text(json.dumps(figures, indent=2) + '\n')
    heads = [title.replace('\n', ', ') for title in FIGURES.values()]
    lines = [
        '| | ' + ' | '.join(heads) + ' |',
        '|---|' + '---:|' * len(FIGURES),
    ]
    lines += [
        f'| {title} | '
        + ' | '.join(cell(key, *summary[start][key]) for key in FIGURES)
        + ' |'
        for start, title in STARTS.items()
    ]
    text = '\n'.join([*lines, '', caption(args, tables)])
    (args.work_dir / 'results.md').write_text(text + '\n')


def write_report(args: argparse.Namespace, tables: list[dict]) -> Path:
    """The page of all runs, with the pictures."""
    zero_shot = statistics.fmean(t['clip_zero_shot_top1'] for t in tables)
    write_result(
        args.work_dir,
        'zero-shot',
        'small CLIP, the teacher',
        {'zero-shot top-1 (%)': zero_shot},
        pictures=[dict(file=name, caption=text) for name, text in PICTURES.items()],
    )
    return build_report([args.work_dir], args.work_dir / 'report').html


def show(args: argparse.Namespace, tables: list[dict], console: Console) -> None:
    summary = summarise(tables)
    table = Table(caption=caption(args, tables), caption_justify='left')
    table.add_column('')
    for title in FIGURES.values():
        table.add_column(title, justify='right')
    for start, title in STARTS.items():
        table.add_row(title, *(cell(key, *summary[start][key]) for key in FIGURES))
    console.print(table)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--work-dir', type=Path, default=ROOT / 'work_dirs/quickstart', help='results'
    )
    parser.add_argument(
        '--data', type=Path, default=ROOT / 'data/toy', help='where scenes are drawn'
    )
    parser.add_argument('--seed', type=int, default=0, help='the first seed (0)')
    parser.add_argument('--seeds', type=int, default=1, help='how many seeds (1)')
    parser.add_argument(
        '--force', action='store_true', help='repeat finished stages, too'
    )
    parser.add_argument(
        '--quick',
        action='store_true',
        help='cut every stage short: to see that all of it runs, in two minutes',
    )
    args = parser.parse_args(argv)
    if args.seeds < 1:
        parser.error(f'--seeds is {args.seeds}; at least one is needed')
    args.work_dir, args.data = args.work_dir.resolve(), args.data.resolve()
    return args


def main() -> int:
    args, console, start = parse_args(), Console(), time.time()
    plans = [Plan(args, args.seed + i) for i in range(args.seeds)]
    todo = [data_stage(args)] + [stage for plan in plans for stage in plan.stages()]
    todo.append(picture_stage(args, plans[0], [stage.name for stage in todo]))
    stages = Stages(todo, args.work_dir, ROOT, console, args.force)
    try:
        stages.run()
    except StageError as error:
        console.print(
            str(error), style='red', markup=False, highlight=False, soft_wrap=True
        )
        return 1
    except KeyboardInterrupt:
        console.print('Interrupted; the same command goes on from here.')
        return 130
    tables = [plan.figures(stages) for plan in plans]
    write_results(args, tables)
    show(args, tables, console)
    page = write_report(args, tables)
    console.print(
        f'{clock(time.time() - start)} minutes. The pictures and the table are in '
        f'{args.work_dir}, and all runs with their curves on one page:\n{page}',
        highlight=False,
        soft_wrap=True,
    )
    return 0


if __name__ == '__main__':
    sys.exit(main())
