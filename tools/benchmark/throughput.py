"""Training throughput of pre-training configs, side by side in one run (table 11).

    python tools/benchmark/throughput.py \
        configs/ablation/{kmeans,layer-wise-kmeans}_vit-b_300e.py \
        configs/dtm_vit-b_300e.py configs/baseline/token-wise_vit-b_300e.py

Builds every config's model, optimizer included, on made images, and times
whole steps (views, teacher, student, morphing, loss, backward, update) in
turn, so that a machine whose speed drifts slows all of them alike. Weights do
not change the time, so the teachers are built without any. The last config is
the one that the others are compared with.
"""

import argparse
import json
import statistics
import time
import warnings
from pathlib import Path

import torch
from mmengine.config import Config, DictAction
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from rich.console import Console
from rich.progress import Progress, TimeRemainingColumn
from rich.table import Table

import mmdtm.plugin  # noqa: F401
from mmdtm.datasets.transforms import BlockMaskGenerator
from mmdtm.io import write_text
from mmdtm.run_record import config_name
from mmdtm.smoke import shrink_model

# What table 11's speeds are shares of; beside it a row is compared with the paper's.
BASELINE = 'baseline/token-wise_vit-b_300e'


def parse_args() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('configs', nargs='+', type=Path, help='pre-training configs')
    parser.add_argument('--batch-size', type=int, default=8, help='images per step')
    parser.add_argument('--steps', type=int, default=10, help='timed steps of each')
    parser.add_argument('--warmup', type=int, default=2, help='untimed steps of each')
    parser.add_argument(
        '--device', default='cuda' if torch.cuda.is_available() else 'cpu'
    )
    parser.add_argument('--amp', action='store_true', help='bfloat16 autocast')
    parser.add_argument('--compile', action='store_true', help='torch.compile models')
    parser.add_argument(
        '--smoke',
        action='store_true',
        help='tiny models, to try the tool: values mean nothing',
    )
    parser.add_argument('--out', type=Path, help='write the values as JSON')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
    return parser.parse_args()


class Contender:
    """One config, ready to take steps."""

    def __init__(self, path: Path, args: argparse.Namespace) -> None:
        cfg = Config.fromfile(path)
        cfg.merge_from_dict(args.cfg_options)
        init_default_scope(cfg.get('default_scope', 'mmpretrain'))
        cfg.model.target_generator.random_weights = True
        if args.smoke:
            shrink_model(cfg.model)
        self.name, self.config = path.stem, config_name(path)
        self.device = torch.device(args.device)
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', 'RANDOM TEACHER')
            self.model = MODELS.build(cfg.model)
        self.model.init_weights()
        self.model.to(self.device).train()
        wrapper = dict(cfg.optim_wrapper, type='OptimWrapper')
        wrapper.pop('loss_scale', None)
        self.optim_wrapper = build_optim_wrapper(self.model, wrapper)
        if args.compile:
            self.model.forward = torch.compile(self.model.forward)
        self.amp = args.amp
        self.batch = made_batch(args.batch_size, cfg.model.backbone.img_size)
        self.seconds: list[float] = []

    def step(self) -> None:
        """Take one training step, and note its time."""
        self._synchronise()
        start = time.perf_counter()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp):
            data = self.model.data_preprocessor(self.batch, training=True)
            losses = self.model(**data, mode='loss')
        self.optim_wrapper.update_params(self.model.parse_losses(losses)[0])
        self._synchronise()
        self.seconds.append(time.perf_counter() - start)

    def _synchronise(self) -> None:
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)


def made_batch(batch_size: int, img_size: int) -> dict:
    """Random images with block masks, as the data loader hands them over."""
    generator = BlockMaskGenerator(img_size // 16, 0.4)
    samples = []
    for _ in range(batch_size):
        sample = DataSample()
        sample.mask = torch.from_numpy(generator.draw())
        samples.append(sample)
    images = torch.randint(0, 256, (batch_size, 3, img_size, img_size))
    return dict(inputs=images.to(torch.uint8), data_samples=samples)


def measure(contenders: list[Contender], warmup: int, steps: int) -> None:
    """Let all take their steps in turn."""
    columns = (*Progress.get_default_columns()[:3], TimeRemainingColumn())
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task('steps', total=(warmup + steps) * len(contenders))
        for number in range(warmup + steps):
            for contender in contenders:
                contender.step()
                progress.advance(task)
            if number < warmup:
                for contender in contenders:
                    contender.seconds.clear()


def summarise(contenders: list[Contender], batch_size: int) -> list[dict]:
    """Medians, and the median of the pairwise ratios to the last contender."""
    reference = contenders[-1].seconds
    against_baseline = contenders[-1].config == BASELINE
    rows = []
    for contender in contenders:
        seconds = statistics.median(contender.seconds)
        ratios = [
            b / a for a, b in zip(contender.seconds, reference, strict=True)
        ]  # > 1: faster than the reference
        rows.append(
            dict(
                name=contender.name,
                config=contender.config if against_baseline else '',
                seconds_per_step=seconds,
                images_per_second=batch_size / seconds,
                relative_throughput=statistics.median(ratios),
            )
        )
    return rows


def main() -> None:
    """Measure and print."""
    args = parse_args()
    # Building a model logs a line for each of its tensors.
    MMLogger.get_instance('mmdtm', log_level='WARNING')
    contenders = [Contender(path, args) for path in args.configs]
    measure(contenders, args.warmup, args.steps)
    rows = summarise(contenders, args.batch_size)
    table = Table(
        title=f'Training throughput, {args.device}, batch {args.batch_size}, '
        f'median of {args.steps} steps taken in turn'
    )
    for column in ('config', 's / step', 'images / s', f'against {rows[-1]["name"]}'):
        table.add_column(column, justify='left' if column == 'config' else 'right')
    for row in rows:
        table.add_row(
            row['name'],
            f'{row["seconds_per_step"]:.3f}',
            f'{row["images_per_second"]:.2f}',
            f'{row["relative_throughput"]:.3f}',
        )
    Console().print(table)
    if args.out:
        result = dict(kind='throughput', device=args.device, batch=args.batch_size)
        result.update(smoke=args.smoke, rows=rows)
        write_text(args.out, json.dumps(result, indent=2))


if __name__ == '__main__':
    main()
