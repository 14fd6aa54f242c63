"""What a pre-training step costs, contenders in turn in one run (table 11).

    python tools/benchmark/step.py --batch-size 128 --compile --release-style

Steps are real ones: the config's runner, optimizer wrapper and hooks, on one made
batch in pinned memory, with a teacher of random weights. N_m and k go evenly through
their ranges, so that 28 steps have the mean cost of many. By default the contenders
are table 11's rows; the last config is the one that the others are compared with. With
--token-wise and one config that is the config without morphing.
Several processes: tools/torchrun.py --nproc_per_node N tools/benchmark/step.py ...
--launcher pytorch.
"""

import argparse
import os
import statistics
from pathlib import Path

import torch
from contenders import (
    PARTS,
    Contender,
    benchmark_parser,
    device_peak,
    measure,
    print_table,
    step_flop,
    write_rows,
)
from mmengine.config import Config, DictAction
from mmengine.dist import get_world_size, is_main_process
from mmengine.registry import init_default_scope
from release_style import in_release_style

from mmdtm.run_record import config_name

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
DTM = 'dtm_vit-b_300e'
# What table 11's speeds are shares of; beside it a row is compared with the paper's.
BASELINE = 'baseline/token-wise_vit-b_300e'
ROWS = ('ablation/kmeans_vit-b_300e', 'ablation/layer-wise-kmeans_vit-b_300e')
COLUMNS = {
    'seconds_per_step': 's/step',
    'seconds_per_step_p95': '95 %',
    'images_per_second': 'images/s',
    'relative_throughput': 'relative',
    'peak_share': 'of peak',
    'gigabytes': 'GB',
    'kernels': 'kernels',
    'waits': 'waits',
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = benchmark_parser(__doc__)
    add = parser.add_argument
    add('configs', nargs='*', type=Path, help="pre-training configs (table 11's)")
    add('--batch-size', type=int, default=8, help='images per step')
    add('--steps', type=int, default=28, help='timed steps of each; a multiple of 14')
    add('--warmup', type=int, default=2, help='untimed steps of each')
    add('--turn', type=int, default=1, help='steps that a contender takes at a time')
    add('--compile', action='store_true', help='each config compiled, too')
    text = "DTM with the release's ways of computing, too"
    add('--release-style', action='store_true', help=text)
    add('--token-wise', action='store_true', help='each config without morphing, too')
    add('--real-data', action='store_true', help="load the config's images")
    text = 'tiny models, to try the tool: values mean nothing'
    add('--smoke', action='store_true', help=text)
    add('--launcher', choices=['none', 'pytorch', 'slurm'], default='none')
    add('--local-rank', type=int, default=0)
    add('--cfg-options', nargs='+', action=DictAction, default={})
    args = parser.parse_args(argv)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    rows = (*ROWS, DTM, BASELINE)
    args.configs = args.configs or [CONFIGS / f'{row}.py' for row in rows]
    return args


def load_config(path: Path, args: argparse.Namespace, **changes) -> Config:
    """A config with what the command line and a contender change."""
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(args.cfg_options)
    cfg.merge_from_dict(changes)
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    return cfg


def build(args: argparse.Namespace) -> list[Contender]:
    """All contenders, the one that the others are compared with last."""
    options = dict(
        batch_size=args.batch_size,
        steps=args.steps,
        smoke=args.smoke,
        real_data=args.real_data,
        launcher=args.launcher,
    )
    contenders = []
    for path in args.configs:
        if args.release_style and path.stem == DTM:
            contenders.append(
                Contender(
                    f'{DTM}, release style',
                    load_config(path, args),
                    change=in_release_style,
                    **options,
                )
            )
        if args.compile:
            cfg = load_config(path, args, compile=True)
            contenders.append(Contender(f'{path.stem}, compiled', cfg, **options))
        contenders.append(Contender(path.stem, load_config(path, args), **options))
        contenders[-1].config = config_name(path)
        if args.token_wise:
            cfg = load_config(path, args)
            cfg.model.morphing = dict(type='IdentityMorphing')
            contenders.append(Contender(f'{path.stem}, token-wise', cfg, **options))
    return contenders


def summarise(contenders: list[Contender], peak: float) -> list[dict]:
    """A row of each, with the median of the pairwise ratios to the last one."""
    totals = [[sum(s.values()) for s in c.clock.read()] for c in contenders]
    against_baseline = contenders[-1].config == BASELINE
    rows = []
    for contender, seconds in zip(contenders, totals, strict=True):
        row = contender.row(peak)
        ratios = [b / a for a, b in zip(seconds, totals[-1], strict=True)]
        row['relative_throughput'] = statistics.median(ratios)  # > 1: faster
        row['config'] = contender.config if against_baseline else ''
        rows.append(row)
    return rows


def show(rows: list[dict], title: str) -> None:
    """Print what a step costs, and the time of its parts."""
    header = ['contender', *COLUMNS.values()]
    print_table(title, header, [[r['name'], *map(r.get, COLUMNS)] for r in rows])
    parts = [part for part in PARTS if any(r[f'{part}_ms'] for r in rows)]
    print_table(
        'Median milliseconds of the parts',
        ['contender', *parts],
        [[r['name'], *(r[f'{part}_ms'] for part in parts)] for r in rows],
    )


def main(argv: list[str] | None = None) -> list[dict]:
    """Measure, print and write."""
    args = parse_args(argv)
    contenders = build(args)
    measure(contenders, args.steps, args.warmup, args.turn)
    device = contenders[0].device
    peak, source = device_peak(device, contenders[0].clock.now)
    rows = summarise(contenders, peak)
    if is_main_process():
        flop = step_flop(contenders[-1].model)
        work = f'{flop / 1e9:.1f} GFLOP an image; ' if flop else ''
        show(
            rows,
            f'{get_world_size()} x {args.batch_size} images, {device}, median of '
            f'{args.steps} steps in turn; {work}peak '
            f'{peak / 1e12:.3g} TFLOPS ({source})',
        )
        write_rows(
            args.out,
            'throughput',
            rows,
            smoke=args.smoke,
            device=str(device),
            batch=args.batch_size,
            processes=get_world_size(),
            threads=torch.get_num_threads(),
            gigaflops_per_image=flop and flop / 1e9,
            peak_teraflops=peak / 1e12,
        )
    return rows


if __name__ == '__main__':
    main()
