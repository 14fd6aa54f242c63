"""The Tiny ImageNet study's tables and picture, drawn from its JSON alone."""

import json
import statistics
from pathlib import Path

from scipy.stats import ttest_rel

from mmdtm.io import write_text
from mmdtm.report.text import markdown_table, spread_text
from mmdtm.visualization import LINE_COLORS, PLOT_STYLE, save_figure

NAME = 'tiny-imagenet'
PUBLISHED = Path(__file__).resolve().parents[2] / 'docs/evidence'
RANDOM, BASELINE = 'random', 'token-wise'
# By the names of their configs.
ARMS = {
    BASELINE: 'token-wise',
    'downsampled': 'downsampled',
    'fixed-32': 'fixed morphing',
    'dtm': 'DTM',
}
STARTS = {RANDOM: 'random start'} | ARMS
METRICS = {
    'linear_top1': 'linear probe',
    'knn_top1': 'k-NN',
    'blurred_top1': 'linear, blurred',
    'noisy_top1': 'linear, noisy',
    'box_miou': 'boxes (mIoU)',
    'finetuned_1': 'fine-tuned, 1 a class',
    'finetuned_10': 'fine-tuned, 10 a class',
    'finetuned_100': 'fine-tuned, 100 a class',
}


def values_of(runs: list[dict], arm: str, key: str) -> dict[int, float]:
    """A metric of an arm by seed, as far as it is there."""
    return {r['seed']: r[key] for r in runs if r['arm'] == arm and key in r}


def paired(runs: list[dict], arm: str, other: str, key: str) -> str:
    """Mean difference over the seeds of both, and p of a paired t-test."""
    mine, theirs = (values_of(runs, name, key) for name in (arm, other))
    seeds = sorted(mine.keys() & theirs.keys())
    if not seeds:
        return '–'
    pairs = [(mine[seed], theirs[seed]) for seed in seeds]
    text = f'{statistics.fmean(a - b for a, b in pairs):+.2f}'
    if len({a - b for a, b in pairs}) > 1:
        text += f' (p = {ttest_rel(*zip(*pairs, strict=True)).pvalue:.2f})'
    return text


def tables(content: dict) -> str:
    """Tables of the teacher, the comparison, the differences and the tuning."""
    runs, lines = content['runs'], []
    teacher = content['teacher']
    if 'patches' in teacher:
        header = ('', 'zero-shot (%)', 'linear probe (%)', 'right patches (%)')
        keys = ('zero_shot', 'linear_probe', 'right_patches')
        names = {'image': 'image feature', 'without': 'patches', 'with': 'morphed'}
        rows = [
            [text, *(value_text(teacher['patches'][way], key) for key in keys)]
            for way, text in names.items()
        ]
        lines += ["The teacher's patches, as in table 1", '']
        lines += [*markdown_table(header, rows), '']
    if runs:
        rows = [
            [
                title,
                *(
                    spread_text([*values_of(runs, arm, key).values()], 2)
                    for key in METRICS
                ),
            ]
            for arm, title in STARTS.items()
        ]
        lines += ['Mean ± standard deviation over the seeds (%); no ±: one seed', '']
        lines += [*markdown_table(('', *METRICS.values()), rows), '']
        rows = [
            [title, *(paired(runs, arm, BASELINE, key) for key in METRICS)]
            for arm, title in STARTS.items()
            if arm != BASELINE
        ]
        lines += ['Difference from token-wise, and p of a paired t-test', '']
        lines += [*markdown_table(('', *METRICS.values()), rows), '']
    if content['tuning']:
        header = ('arm', 'variant', 'learning rate', 'linear probe', 'k-NN')
        rows = [
            [
                ARMS[row['arm']], row['variant'], f'{row["lr"]:g}',
                f'{row["linear_top1"]:.2f}', f'{row["knn_top1"]:.2f}',
            ]
            for row in content['tuning']
        ]  # fmt: skip
        lines += ['Tuning: one epoch each, one seed', '']
        lines += [*markdown_table(header, rows), '']
    return '\n'.join(lines or ['No run has ended yet.']).rstrip() + '\n'


def report_rows(runs: list[dict]) -> list[dict]:
    """A row for each start, means over its seeds, as tools/report.py reads them."""
    rows = []
    for start, title in STARTS.items():
        found = {key: values_of(runs, start, key).values() for key in METRICS}
        metrics = {
            key: statistics.fmean(values) for key, values in found.items() if values
        }
        seeds = sum(row['arm'] == start for row in runs)
        if metrics:
            rows.append(dict(name=title, metrics=metrics, settings=dict(seeds=seeds)))
    if rows and any('curve' in row for row in runs):
        caption = 'Tiny ImageNet: probes while pre-training'
        rows[0]['pictures'] = [dict(file=f'{NAME}.png', caption=caption)]
    return rows


def value_text(values: dict, key: str) -> str:
    """A value to two digits, or a dash."""
    return f'{values[key]:.2f}' if key in values else '–'


def draw(content: dict, path: Path) -> None:
    """The probes over the epochs of pre-training: a line for each arm, its seeds thin.

    Args:
        content: Of tiny-imagenet.json.
        path: PNG to write.
    """
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    with plt.style.context(PLOT_STYLE):
        figure, panels = plt.subplots(1, 2, figsize=(9, 3.6))
        for panel, key in zip(panels, ('linear_top1', 'knn_top1'), strict=True):
            for color, (arm, title) in zip(LINE_COLORS, ARMS.items(), strict=False):
                curves = [
                    {point['epoch']: point[key] for point in row['curve']}
                    for row in content['runs']
                    if row['arm'] == arm and 'curve' in row
                ]
                for curve in curves:
                    panel.plot(
                        list(curve),
                        list(curve.values()),
                        color=color,
                        lw=0.7,
                        alpha=0.4,
                    )
                if curves:
                    shared = sorted(set.intersection(*map(set, curves)))
                    mean = [statistics.fmean(c[e] for c in curves) for e in shared]
                    panel.plot(shared, mean, color=color, lw=1.8, label=title)
            panel.set(xlabel='epoch', ylabel=f'{METRICS[key]}, top-1 (%)')
        panels[0].legend()
        save_figure(figure, path, dpi=110)
        plt.close(figure)


def publish(content: dict, out: Path) -> None:
    """Write tiny-imagenet.json and .png, and the tables.

    Args:
        content: Of tiny-imagenet.json.
        out: Folder; in ``docs/evidence`` the tables go into the page beside it, else
            into tiny-imagenet.md.
    """
    if any('curve' in row for row in content['runs']):
        draw(content, out / f'{NAME}.png')
    shown = dict(kind='Tiny ImageNet study', rows=report_rows(content['runs']))
    write_text(out / f'{NAME}.json', json.dumps(content | shown, indent=1) + '\n')
    if out.resolve() == PUBLISHED:
        page = out.with_suffix('.md')
        write_text(page, with_tables(page.read_text(encoding='utf-8'), content))
    else:
        write_text(out / f'{NAME}.md', tables(content))


def with_tables(page: str, content: dict) -> str:
    """The page with new tables between its markers."""
    start, end = f'<!-- {NAME} -->\n', '<!-- end -->'
    before, _, rest = page.partition(start)
    return before + start + tables(content) + end + rest.partition(end)[2]
