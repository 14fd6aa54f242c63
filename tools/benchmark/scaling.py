"""How a pre-training step grows: with images, tokens, iterations, width, processes.

    python tools/benchmark/scaling.py --out work_dirs/scaling/scaling.json

Real steps, as in step.py, of DTM with a ViT. Along an axis one thing changes, and its
points take turns; the others are as --base-... says. Processes are started by
tools/torchrun.py, one number after the other. Draws the values beside the JSON.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from contenders import (
    PARTS,
    Contender,
    benchmark_parser,
    device_peak,
    measure,
    print_table,
    write_rows,
)
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmdtm.visualization import LINE_COLORS, save_figure

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402

TOOLS = Path(__file__).resolve().parents[1]
CONFIG = TOOLS.parent / 'configs/dtm_vit-b_300e.py'
AXES = {
    'batch': 'images in a step, B',
    'tokens': 'tokens of an image, N',
    'iterations': 'iterations of the matching, k',
    'width': "student's width, C",
    'processes': 'processes',
}
DRAWN = ('teacher', 'student', 'matching', 'loss', 'backward', 'optimizer')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = benchmark_parser(__doc__)
    add = parser.add_argument
    add('--batch', type=int, nargs='*', default=[2, 4, 8, 16])
    add('--tokens', type=int, nargs='*', default=[49, 100, 196, 400], help='squares')
    add('--iterations', type=int, nargs='*', default=[1, 5, 10, 14])
    add('--width', type=int, nargs='*', default=[192, 384, 768], help='multiples of 64')
    add('--processes', type=int, nargs='*', default=[1, 2])
    add('--base-batch', type=int, default=8)
    add('--base-tokens', type=int, default=196)
    add('--base-width', type=int, default=384)
    add('--layers', type=int, default=12, help="the student's")
    add('--steps', type=int, default=14, help='of each point')
    add('--warmup', type=int, default=1, help='untimed steps')
    add('--smoke', action='store_true', help='a tiny teacher')
    return parser.parse_args(argv)


def point(args: argparse.Namespace, axis: str, value: int) -> tuple[int, Config]:
    """The batch size and the config of a point."""
    sizes = dict(batch=args.base_batch, tokens=args.base_tokens, width=args.base_width)
    sizes |= {axis: value}
    width = sizes['width']
    cfg = Config.fromfile(CONFIG)
    cfg.model.backbone.img_size = 16 * round(sizes['tokens'] ** 0.5)
    cfg.model.backbone.arch = dict(
        embed_dims=width,
        num_layers=args.layers,
        num_heads=width // 64,
        feedforward_channels=4 * width,
    )
    if axis == 'iterations':
        cfg.model.morphing.num_iters = value
    init_default_scope(cfg.default_scope)
    return sizes['batch'], cfg


def grown(args: argparse.Namespace, axis: str, values: Sequence[int]) -> list[dict]:
    """The rows of an axis, whose points take turns."""
    contenders = []
    for value in values:
        batch, cfg = point(args, axis, value)
        name = f'{axis} {value}'
        contenders.append(Contender(name, cfg, batch, args.steps, smoke=args.smoke))
    measure(contenders, args.steps, args.warmup)
    peak = device_peak(contenders[0].device, contenders[0].clock.now)[0]
    return [
        dict(contender.row(peak), axis=axis, value=value)
        for value, contender in zip(values, contenders, strict=True)
    ]


def spread(args: argparse.Namespace, numbers: Sequence[int]) -> list[dict]:
    """The rows of runs on several processes, each with as many images and threads."""
    threads = str(max(1, (os.cpu_count() or 1) // max(numbers)))
    environment = os.environ | dict(OMP_NUM_THREADS=threads, MKL_NUM_THREADS=threads)
    rows = []
    for number in numbers:
        batch, cfg = point(args, 'processes', number)
        with tempfile.TemporaryDirectory() as folder:
            config, out = Path(folder, 'config.py'), Path(folder, 'step.json')
            cfg.dump(config)
            command = [sys.executable, TOOLS / 'torchrun.py', '--standalone']
            command += [f'--nproc_per_node={number}', TOOLS / 'benchmark/step.py']
            command += [config, '--launcher=pytorch', f'--batch-size={batch}']
            command += [f'--steps={args.steps}', f'--warmup={args.warmup}']
            command += [f'--out={out}', *['--smoke'] * args.smoke]
            subprocess.run(
                list(map(str, command)),
                check=True,
                stdout=subprocess.DEVNULL,
                env=environment,
            )
            row = json.loads(out.read_text())['rows'][0]
        rows.append(
            dict(row, name=f'processes {number}', axis='processes', value=number)
        )
    return rows


def draw(rows: list[dict], file: Path) -> None:
    """One panel for each axis: milliseconds of the parts, and of the whole step."""
    axes = [axis for axis in AXES if any(row['axis'] == axis for row in rows)]
    figure, panels = plt.subplots(
        1,
        len(axes),
        figsize=(3.6 * len(axes), 3.6),
        squeeze=False,
        sharey=True,
        layout='constrained',
    )
    for panel, axis in zip(panels[0], axes, strict=True):
        points = [row for row in rows if row['axis'] == axis]
        x = [row['value'] for row in points]
        whole = [1e3 * row['seconds_per_step'] for row in points]
        panel.plot(x, whole, 'k.-', label='whole step')
        for part, colour in zip(DRAWN, LINE_COLORS, strict=True):
            y = [row[f'{part}_ms'] for row in points]
            panel.plot(x, y, '.-', color=colour, label=part)
        panel.set_xlabel(AXES[axis])
        panel.set_xscale('log')
        panel.set_yscale('log')
        panel.set_xticks(x, map(str, x))
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0, 0].set_ylabel('ms in a step (median)')
    figure.legend(
        *panels[0, 0].get_legend_handles_labels(), loc='outside upper center', ncols=7
    )
    save_figure(figure, file, dpi=110)
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write and draw."""
    args = parse_args(argv)
    rows = []
    for axis in AXES:
        values = getattr(args, axis)
        if values:
            way = (
                spread(args, values)
                if axis == 'processes'
                else grown(args, axis, values)
            )
            rows += way
    parts = [part for part in PARTS if any(row[f'{part}_ms'] for row in rows)]
    print_table(
        f'B = {args.base_batch}, N = {args.base_tokens}, C = {args.base_width}, '
        f'{args.layers} layers; median milliseconds of {args.steps} steps',
        ['', 'images/s', 'step', *parts],
        [
            [
                row['name'],
                row['images_per_second'],
                1e3 * row['seconds_per_step'],
                *(row[f'{part}_ms'] for part in parts),
            ]
            for row in rows
        ],
    )
    if args.out:
        picture = args.out.with_suffix('.png')
        draw(rows, picture)
        rows[0]['pictures'] = [dict(file=picture.name, caption='Growth of a step')]
        write_rows(args.out, 'scaling', rows, smoke=args.smoke)


if __name__ == '__main__':
    main()
