"""Draw the images of docs/fidelity.md, and print what they say in numbers.

    python tools/analysis/plot_fidelity.py schedules --out work_dirs/schedules.png

``schedules``: which numbers of morphed tokens the drawn schedules reach. Every
    N_m of 1 to N and every k of the range is counted, none is drawn. An iteration
    of bipartite matching merges at most half of the tokens, so that Eq. (1) often
    leaves more of them than were asked for; with ``reach_num_morphed=True`` none of
    the draws does. One panel gives how often each N_m comes out, the other the
    fewest tokens that k iterations leave.
``masks``: how ragged the masks are, by the length of their border: neighbouring
    patches of which one is masked.
``start``: the weights that the student starts from, beside those of other code for
    BEiT v2, drawn with seed 0.
"""

import mmdtm.plugin  # noqa: F401  # isort: skip

import argparse
from collections import Counter
from fractions import Fraction
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.logging import MMLogger  # noqa: E402
from mmpretrain.registry import MODELS  # noqa: E402
from timm.models.beit import Beit  # noqa: E402

from mmdtm.cli.scripts import script_parser  # noqa: E402
from mmdtm.datasets.transforms import BlockMaskGenerator  # noqa: E402
from mmdtm.morphing import DynamicSchedule, effective_schedule  # noqa: E402
from mmdtm.report.text import markdown_table  # noqa: E402
from mmdtm.visualization import LINE_COLORS, save_figure  # noqa: E402

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
SIZE = (10, 3.6)
SCHEDULES = {'Eq. (1)': False, 'reach_num_morphed=True': True}
MASKS = {
    'the configs': 'dtm_vit-b_300e.py',
    'the release': 'release/dtm_vit-b_300e.py',
}


def parse_args(argv):
    parser = script_parser(__doc__)
    add = parser.add_argument
    add('picture', choices=PICTURES)
    add('--tokens', type=int, default=196, help='N of the schedules')
    k = [1, 14]
    add('--num-iters', type=int, nargs=2, default=k, help='lowest and highest k')
    add('--draws', type=int, default=20_000, help='of masks')
    arch = [768, 12, 12]
    add('--arch', type=int, nargs=3, default=arch, help='width, layers, heads')
    add('--out', type=Path, help='PICTURE.png by default')
    args = parser.parse_args(argv)
    args.out = args.out or Path(f'{args.picture}.png')
    return args


def outcomes(
    num_tokens: int, num_iters: tuple[int, int], reach: bool
) -> list[tuple[int, int, int, Fraction]]:
    """Every draw: N_m drawn, k, N_m that comes out, and the draw's probability."""
    draws = []
    for drawn in range(1, num_tokens + 1):
        span = DynamicSchedule(num_tokens, drawn, num_iters, reach).iters_for(drawn)
        for k in range(span[0], span[1] + 1):
            schedule = DynamicSchedule(num_tokens, drawn, k, reach).draw(0, 0)
            left = num_tokens - sum(effective_schedule(num_tokens, schedule))
            share = Fraction(1, num_tokens * (span[1] - span[0] + 1))
            draws.append((drawn, k, left, share))
    return draws


def draw_schedules(args: argparse.Namespace) -> plt.Figure:
    """N_m that come out, and the fewest tokens by k."""
    figure, (often, fewest) = plt.subplots(1, 2, figsize=SIZE)
    for color, (name, reach) in zip(LINE_COLORS, SCHEDULES.items(), strict=False):
        draws = outcomes(args.tokens, tuple(args.num_iters), reach)
        shares: Counter = Counter()
        least: dict[int, int] = {}
        for _, k, left, share in draws:
            shares[left] += share
            least[k] = min(left, least.get(k, left))
        missed = sum(share for drawn, _, left, share in draws if left != drawn)
        mean = sum(left * share for left, share in shares.items())
        print(
            f'{name}: fewest {min(shares)} of {args.tokens} tokens, mean '
            f'{float(mean):.1f}, {float(missed):.2%} of the draws miss their N_m'
        )
        counts = range(1, args.tokens + 1)
        percent = [100 * float(shares[n]) for n in counts]
        often.step(counts, percent, where='mid', color=color)
        ks = sorted(least)
        fewest.plot(ks, [least[k] for k in ks], 'o-', color=color, label=name)
    often.set(xlabel='$N_m$ that comes out', ylabel='share of the draws (%)', ylim=0)
    fewest.legend(loc='upper right')  # no curve there for any k
    fewest.set(xlabel='iterations $k$', ylabel='fewest tokens left')
    fewest.set_yscale('log', base=2)
    fewest.yaxis.set_major_formatter('{x:.0f}')
    return figure


def mask_border(mask: np.ndarray) -> int:
    """Neighbouring patches of a mask (h, w) of which just one is masked."""
    return int((mask[1:] != mask[:-1]).sum() + (mask[:, 1:] != mask[:, :-1]).sum())


def draw_masks(args: argparse.Namespace) -> plt.Figure:
    """Borders of many masks, and the first masks of each config."""
    layout = [['borders', *(f'{name} {i}' for i in range(4))] for name in MASKS]
    widths = [5, 1.5, 1.5, 1.5, 1.5]
    figure, axes = plt.subplot_mosaic(layout, figsize=SIZE, width_ratios=widths)
    for color, (name, path) in zip(LINE_COLORS, MASKS.items(), strict=False):
        (step,) = [
            step
            for step in Config.fromfile(CONFIGS / path).train_pipeline
            if step.pop('type') == 'BlockMaskGenerator'
        ]
        generator = BlockMaskGenerator(**step)
        np.random.seed(0)
        masks = [generator.draw() for _ in range(args.draws)]
        borders = [mask_border(mask) for mask in masks]
        print(
            f'{name}: {generator.num_masked} of {masks[0].size} patches masked, mean '
            f'border {np.mean(borders):.1f}'
        )
        label = f'{name} ({generator.num_masked} masked)'
        counts = np.bincount(borders) / len(borders) * 100
        panel = axes['borders']
        panel.step(range(len(counts)), counts, where='mid', color=color, label=label)
        panel.axvline(np.mean(borders), color=color, linestyle='--')
        for i, mask in enumerate(masks[:4]):
            axis = axes[f'{name} {i}']
            axis.pcolormesh(mask, cmap='Greys', edgecolors='0.8', linewidth=0.3)
            axis.set(aspect='equal', xticks=[], yticks=[])
            axis.invert_yaxis()
            if i == 0:
                axis.set_ylabel(name, color=color)
    label = 'border of a mask (dashed: mean)'
    axes['borders'].set(xlabel=label, ylabel='share of the draws (%)')
    axes['borders'].margins(y=0.3)
    axes['borders'].set_ylim(bottom=0)
    axes['borders'].legend(loc='upper left')
    return figure


def build_students(
    width: int, num_layers: int, num_heads: int
) -> dict[str, torch.nn.Module]:
    """The student, and two other BEiT v2's with random weights."""
    MMLogger.get_instance('plot_fidelity', log_level='WARNING')  # no word a weight
    arch = dict(embed_dims=width, num_layers=num_layers, num_heads=num_heads)
    arch['feedforward_channels'] = 4 * width
    students = {}
    for name, path in {
        'DTMPretrainViT': 'dtm_vit-b_300e.py',
        "mmpretrain's BEiTPretrainViT": 'applicability/beitv2_vit-b_100e.py',
    }.items():
        torch.manual_seed(0)
        config = Config.fromfile(CONFIGS / path).model.backbone
        config.update(arch=arch, out_indices=[num_layers - 1])
        students[name] = MODELS.build(config)
        students[name].init_weights()
    torch.manual_seed(0)
    students["timm's Beit"] = Beit(
        embed_dim=width,
        depth=num_layers,
        num_heads=num_heads,
        init_values=0.1,
        use_abs_pos_emb=False,
        use_rel_pos_bias=True,
    )
    return students


def start_weights(vit: torch.nn.Module) -> dict[str, list[torch.Tensor]]:
    """Weights by what they are for, one a layer or one in all."""
    ours = hasattr(vit, 'layers')
    layers = vit.layers if ours else vit.blocks
    embedding = vit.patch_embed.projection if ours else vit.patch_embed.proj
    first = [x.ffn.layers[0][0] if ours else x.mlp.fc1 for x in layers]
    return {
        'patch embedding': [embedding.weight],
        'class token': [vit.cls_token],
        'mask token': [vit.mask_token] if hasattr(vit, 'mask_token') else [],
        'query, key, value': [layer.attn.qkv.weight for layer in layers],
        'first feed-forward layer': [linear.weight for linear in first],
        "attention's output, by layer": [layer.attn.proj.weight for layer in layers],
    }


@torch.no_grad()
def draw_start(args: argparse.Namespace) -> plt.Figure:
    """Weights of all layers, and the deviation of one kind by layer."""
    students = {
        name: start_weights(vit) for name, vit in build_students(*args.arch).items()
    }
    rows = []
    for part in next(iter(students.values())):
        spans = []
        for weights in students.values():
            found = [f'{tensor.std():.4f}' for tensor in weights[part]]
            spans.append(
                ' to '.join(dict.fromkeys((found or [''])[:: len(found) - 1 or 1]))
            )
        rows.append([part, *spans])
    print(*markdown_table(['standard deviation of', *students], rows), sep='\n')
    figure, (shapes, depths) = plt.subplots(1, 2, figsize=SIZE)
    bins = np.linspace(-0.065, 0.065, 131)
    for color, (name, weights) in zip(LINE_COLORS, students.items(), strict=False):
        values = torch.cat([w.flatten() for w in weights['query, key, value']]).numpy()
        density, _ = np.histogram(values, bins, density=True)
        shapes.stairs(density, bins, color=color, label=name)
        deviations = [w.std().item() for w in weights["attention's output, by layer"]]
        depths.plot(range(1, 1 + len(deviations)), deviations, 'o-', color=color)
    shapes.set(xlabel='weights of query, key and value', ylabel='density', ylim=(0, 62))
    shapes.legend(loc='upper left', fontsize='small')
    depths.set(xlabel='layer', ylabel="deviation of attention's output", ylim=0)
    return figure


PICTURES = dict(schedules=draw_schedules, masks=draw_masks, start=draw_start)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    # Here the frames stay, and without lines within.
    plt.style.use({'figure.constrained_layout.use': True, 'legend.frameon': False})
    figure = PICTURES[args.picture](args)
    save_figure(figure, args.out, dpi=110)
    print(f'wrote {args.out}')


if __name__ == '__main__':
    main()
