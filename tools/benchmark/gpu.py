"""What can only be measured on a GPU, in one command (docs/performance.md).

    python tools/benchmark/gpu.py --out work_dirs/gpu --data data/imagenet

1 waits, 2 profile, 3 attention, 4 compiled, 5 table-11, 6 release-style, 7 loader,
8 deterministic; --only chooses. Each prints, and writes a file into --out, which
tools/report.py shows where it is JSON. About half an hour on one GPU.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import step
import torch
import torch.nn.functional as F
from contenders import Contender, print_table, take_turns, write_rows
from torch import Tensor

from mmdtm.cli.scripts import script_parser
from mmdtm.io import write_text

DTM = step.CONFIGS / f'{step.DTM}.py'
BASELINE = step.CONFIGS / f'{step.BASELINE}.py'
KMEANS = step.CONFIGS / f'{step.ROWS[0]}.py'
FAIR = ['--turn', '10', '--warmup', '10']


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = script_parser(__doc__)
    add = parser.add_argument
    add('--out', type=Path, default=Path('work_dirs/gpu'))
    add('--data', help="ImageNet's folder, for the loader")
    add('--batch-size', type=int, default=128)
    add('--only', nargs='+', choices=list(MEASUREMENTS), default=list(MEASUREMENTS))
    return parser.parse_args(argv)


def dtm(batch_size: int, **changes) -> Contender:
    """The paper's config, ready to take steps."""
    args = step.parse_args([str(DTM)])
    return Contender('DTM', step.load_config(DTM, args, **changes), batch_size)


def waits(args: argparse.Namespace) -> None:
    """20 steps in which a wait is an error."""
    contender = dtm(args.batch_size)
    contender.turn(5)
    torch.cuda.set_sync_debug_mode('error')
    contender.turn(20)
    torch.cuda.set_sync_debug_mode('default')
    print('20 steps did not wait for the device.')


def profile(args: argparse.Namespace) -> None:
    """Kernels of an eager step, the longest first."""
    contender = dtm(args.batch_size)
    contender.turn(5)
    with torch.profiler.profile() as profiler:
        contender.turn(1)
        torch.cuda.synchronize()
    table = profiler.key_averages().table('self_device_time_total', row_limit=60)
    print(table)
    write_text(args.out / 'profile.txt', table)


def attentions(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor
) -> dict[str, Callable[[], Tensor]]:
    """Ways to attend with a bias that gets a gradient, by name.

    Args:
        query: (B, H, T, C / H).
        key: likewise.
        value: likewise.
        bias: (H, T, T), padded to a multiple of 8 in memory.
    """
    from torch.nn.attention.flex_attention import flex_attention

    def materialised() -> Tensor:
        logits = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5 + bias
        return logits.softmax(-1) @ value

    def flex() -> Tensor:
        return flex_attention(
            query, key, value, lambda score, b, h, q, k: score + bias[h, q, k]
        )

    return {
        'scaled_dot_product_attention': lambda: F.scaled_dot_product_attention(
            query, key, value, attn_mask=bias[None]
        ),
        'materialised': materialised,
        'materialised, compiled': torch.compile(materialised),
        'FlexAttention': torch.compile(flex),
    }


def attention(args: argparse.Namespace) -> None:
    """Forward and backward of one layer's attention."""
    device, shape = torch.device('cuda'), (args.batch_size, 12, 197, 64)
    options = dict(device=device, dtype=torch.bfloat16)
    inputs = [torch.randn(shape, **options, requires_grad=True) for _ in range(3)]
    padded = torch.randn(12, 197, 200, **options, requires_grad=True)
    ways = attentions(*inputs, padded[..., :197])
    runs = {name: both_ways(way) for name, way in ways.items()}
    take_turns(runs, device, 5)
    seconds = take_turns(runs, device, 50)
    rows = [
        dict(name=name, milliseconds=1e3 * sorted(times)[25])
        for name, times in seconds.items()
    ]
    print_table(f'Attention, {shape}', ['way', 'ms'], [r.values() for r in rows])
    write_rows(args.out / 'attention.json', 'attention', rows)


def both_ways(function: Callable[[], Tensor]) -> Callable[[], None]:
    """Forward and backward, as a function."""
    return lambda: function().sum().backward(retain_graph=True)


def compiled(args: argparse.Namespace) -> None:
    """DTM compiled and eager, at three batch sizes."""
    for batch in (128, 512, 1024):
        size, out = f'--batch-size={batch}', f'--out={args.out}/compiled-{batch}.json'
        step.main([str(DTM), '--compile', size, out, *FAIR])


def table_11(args: argparse.Namespace) -> None:
    """DTM and K-means against token-wise."""
    size = f'--batch-size={args.batch_size}'
    configs = [str(KMEANS), str(DTM), str(BASELINE)]
    step.main([*configs, '--steps=210', size, f'--out={args.out}/step.json', *FAIR])


def release_style(args: argparse.Namespace) -> None:
    """DTM against the release's ways of computing, eager and compiled."""
    size, out = f'--batch-size={args.batch_size}', f'--out={args.out}/release.json'
    step.main([str(DTM), '--release-style', '--compile', size, out, *FAIR])


def loader(args: argparse.Namespace) -> None:
    """The loader alone with 16 workers, and the step with it."""
    if not args.data:
        print('loader: left out; --data names no images.')
        return
    import loader as benchmark

    data = ['--cfg-options', f'train_dataloader.dataset.data_root={args.data}']
    out = f'--out={args.out}/loader.json'
    benchmark.main([str(DTM), '--workers', '16', '--batch-size=128', out, *data])
    out = f'--out={args.out}/step-with-loader.json'
    data.append('train_dataloader.num_workers=16')
    step.main([str(DTM), '--real-data', '--batch-size=128', out, *FAIR, *data])


def deterministic(args: argparse.Namespace) -> None:
    """Whether two runs of 5 steps end in the same weights, to the bit."""
    ends = []
    for _ in range(2):
        contender = dtm(args.batch_size, randomness=dict(seed=0, deterministic=True))
        contender.turn(5)
        ends.append([p.detach().cpu() for p in contender.model.parameters()])
    same = all(torch.equal(a, b) for a, b in zip(*ends, strict=True))
    print('Two deterministic runs end', 'alike to the bit.' if same else 'APART.')
    if not same:
        sys.exit(1)


MEASUREMENTS: dict[str, Callable[[argparse.Namespace], None]] = {
    'waits': waits,
    'profile': profile,
    'attention': attention,
    'compiled': compiled,
    'table-11': table_11,
    'release-style': release_style,
    'loader': loader,
    'deterministic': deterministic,
}


def main(argv: list[str] | None = None) -> None:
    """Measure what is asked for, in the list's order, each in a process of its own."""
    args = parse_args(argv)
    if not torch.cuda.is_available():
        sys.exit(
            'gpu.py measures a GPU, and torch sees none. Run it on a machine with one, '
            'or step.py, loader.py, matching.py and scaling.py here.'
        )
    args.out.mkdir(parents=True, exist_ok=True)
    if len(args.only) == 1:
        MEASUREMENTS[args.only[0]](args)
        return
    failed = []
    for name in args.only:
        print(f'\n== {name}', flush=True)
        again = [sys.executable, __file__, *(argv or sys.argv[1:]), '--only', name]
        if subprocess.run(again).returncode:
            failed.append(name)
    if failed:
        sys.exit(f'These failed: {", ".join(failed)}. What they say is above.')


if __name__ == '__main__':
    main()
