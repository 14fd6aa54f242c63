r"""Draw training curves as the paper's Figure 5 does, from mmengine's own logs.

Two panels, training loss and validation accuracy against the epoch, and a third,
accuracy against the length of pre-training, where that is known for at least
two runs::

    python tools/analysis/plot_training.py \
        DTM=work_dirs/ft_dtm_100e DTM=work_dirs/ft_dtm_300e \
        baseline=work_dirs/ft_base_100e baseline=work_dirs/ft_base_300e \
        --pretrain-epochs 100 300 100 300 --out fig5.png

A run is a work dir, written NAME=WORK_DIR or WORK_DIR alone. Runs of one name share
a colour and make one line in the third panel. Is a loss right? Lay it over those of
runs that are known, in grey (docs/faq.md)::

    python tools/analysis/plot_training.py work_dirs/mine --reference toy
"""

import sys
from collections.abc import Mapping
from itertools import cycle
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
from matplotlib.ticker import MaxNLocator  # noqa: E402

from mmdtm.cli.scripts import script, script_parser  # noqa: E402
from mmdtm.training_log import (  # noqa: E402
    TrainingLog,
    pretrained_epochs,
    read_training_log,
    reference_logs,
)
from mmdtm.visualization import LINE_COLORS, PLOT_STYLE, save_figure  # noqa: E402

LINE_STYLES = ('-', '--', ':', '-.')
MARKERS = 'osD^vPX'
NamedLog = tuple[str, TrainingLog, float | None]  # and epochs of pre-training


def parse_args(argv):
    parser = script_parser(__doc__)
    add = parser.add_argument
    add('runs', nargs='+', metavar='RUN', help='[NAME=]WORK_DIR or a log file')
    text = 'image to write; .png, .pdf or .svg'
    add('--out', default='training.png', type=Path, help=text)
    text = 'training scalar of the first panel'
    add('--loss', default='loss', metavar='KEY', help=text)
    text = 'validation scalar of the second panel (default: accuracy/top1, or the '
    text += 'first one that the logs hold)'
    add('--accuracy', metavar='KEY', help=text)
    text = 'moving average over this many logged losses'
    add('--smooth', default=1, type=int, metavar='ROWS', help=text)
    text = "each run's pre-training length, in the order of the runs (default: as the "
    text += "runs' records have it)"
    add('--pretrain-epochs', nargs='+', type=float, metavar='EPOCHS', help=text)
    text = 'only the panels against the epoch or the step, or only the one against the '
    text += 'pre-training length (default: all that the logs allow)'
    add('--x', choices=('epoch', 'step', 'pretrain-epochs'), help=text)
    text = 'lay the runs over reference runs whose names begin so, by default over '
    text += 'all, against the step'
    add('--reference', nargs='?', const='', metavar='NAME', help=text)
    args = parser.parse_args(argv)
    if args.reference is not None:
        if args.x not in (None, 'step'):
            parser.error(f'--reference is drawn against the step, not --x {args.x}.')
        args.x = 'step'
    if args.smooth < 1:
        parser.error(f'--smooth must be at least 1, got {args.smooth}.')
    if args.pretrain_epochs and len(args.pretrain_epochs) != len(args.runs):
        parser.error(
            f'--pretrain-epochs needs one number for each of the {len(args.runs)} '
            f'runs, got {len(args.pretrain_epochs)}.'
        )
    return args


def read_runs(runs: list[str], lengths: list[float] | None) -> list[NamedLog]:
    """Read every run that can be read; say on stderr what is wrong with others."""
    found = []
    for index, run in enumerate(runs):
        name, separator, path = run.partition('=')
        if not separator or Path(run).exists():
            name, path = Path(run).name, run
        try:
            log = read_training_log(path)
        except (OSError, ValueError) as error:
            print(f'left out: {error}', file=sys.stderr)
            continue
        if log.broken:
            print(
                f'{len(log.broken)} line(s) cut off or no JSON, left out: '
                f'{", ".join(log.broken[:3])}',
                file=sys.stderr,
            )
        length = lengths[index] if lengths else pretrained_epochs(log)
        found.append((name, log, length))
    return found


def accuracy_key(logs: list[TrainingLog]) -> str | None:
    """The validation scalar to draw: top-1 accuracy if any log has it."""
    keys = [
        key
        for log in logs
        for row in log.val
        for key in row
        if key not in ('step', 'time', 'data_time')
    ]
    return 'accuracy/top1' if 'accuracy/top1' in keys else next(iter(keys), None)


def smooth(values: list[float], rows: int) -> np.ndarray:
    """Mean of each value and the ``rows - 1`` before it, as far as they are finite."""
    values = np.array(values, float)
    values[~np.isfinite(values)] = np.nan
    # Where a value is none, the curve has a gap, and the next ones go on.
    return np.array([
        np.nanmean(values[max(0, i + 1 - rows) : i + 1]) if known else np.nan
        for i, known in enumerate(np.isfinite(values))
    ])  # fmt: skip


def last_values(
    runs: list[NamedLog], accuracy: str
) -> dict[str, list[tuple[float, float]]]:
    """Pre-training epochs and last validation of each name's runs, by length."""
    points: dict[str, list[tuple[float, float]]] = {}
    for name, log, length in runs:
        values = log.series('val', accuracy)[1]
        if length is not None and values:
            points.setdefault(name, []).append((length, values[-1]))
    return {name: sorted(found) for name, found in points.items()}


def draw(
    runs: list[NamedLog],
    loss: str,
    accuracy: str | None,
    rows: int = 1,
    x: str | None = None,
    references: Mapping[str, TrainingLog] = {},
) -> plt.Figure:
    """Draw the panels.

    Args:
        runs: What to draw.
        loss: Key of the training rows.
        accuracy: Key of the validation rows; None if the logs have none.
        rows: Window of the moving average of the loss.
        x: ``'epoch'``, ``'step'`` or ``'pretrain-epochs'`` for those panels alone.
        references: Known runs by name, drawn in grey below the others' loss.

    Raises:
        ValueError: If there is nothing to draw against the asked-for axis.
    """
    points = last_values(runs, accuracy) if accuracy else {}
    lengths = sorted({length for found in points.values() for length, _ in found})
    labels = {}
    if x != 'pretrain-epochs':
        counts_epochs = any(log.iters_per_epoch for _, log, _ in runs)
        in_steps = x == 'step' or not counts_epochs
        unit = 'step' if in_steps else 'epoch'
        labels = dict(loss=(unit, f'training {loss}'))
        if accuracy:
            labels['accuracy'] = (unit, accuracy)
    elif len(lengths) < 2:
        raise ValueError(
            'Accuracy against pre-training length needs validated runs of at least '
            'two lengths. Give the lengths with --pretrain-epochs where the '
            "runs' records do not tell them."
        )
    if x in (None, 'pretrain-epochs') and len(lengths) > 1:
        labels['length'] = ('pre-training epochs', f'{accuracy}, last validation')
    plt.style.use(PLOT_STYLE)
    figure, axes = plt.subplot_mosaic([[*labels]], figsize=(4.6 * len(labels), 3.9))
    for panel, axis in axes.items():
        axis.set(xlabel=labels[panel][0], ylabel=labels[panel][1])
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))

    if 'loss' in axes:
        for (name, log), style in zip(
            references.items(), cycle(LINE_STYLES), strict=False
        ):
            position, values = log.series('train', 'loss', in_steps)
            look = dict(color='0.55', lw=1, ls=style, label=name)
            axes['loss'].plot(position, smooth(values, rows), **look)
    names = dict.fromkeys(name for name, _, _ in runs)
    colors = dict(zip(names, cycle(LINE_COLORS), strict=False))
    markers = dict(zip(names, cycle(MARKERS), strict=False))
    styles = {name: cycle(LINE_STYLES) for name in names}
    for name, log, length in runs:
        suffix = '' if length is None else f', {length:g} ep. pre-training'
        look = dict(color=colors[name], ls=next(styles[name]), label=name + suffix)
        if 'loss' in axes:
            position, values = log.series('train', loss, in_steps)
            axes['loss'].plot(position, smooth(values, rows), **look)
        if 'accuracy' in axes:
            position, values = log.series('val', accuracy, in_steps)
            every = max(1, len(position) // 12)
            look |= dict(marker=markers[name], markersize=4, markevery=every)
            axes['accuracy'].plot(position, values, **look)
    if 'length' in axes:
        axes['length'].set_xticks(lengths)
        for name, found in points.items():
            look = dict(color=colors[name], marker=markers[name], label=name)
            axes['length'].plot(*zip(*found, strict=True), **look)
    # The accuracy's lines have markers too, so that they serve for all panels.
    panel = next(panel for panel in ('accuracy', 'loss', 'length') if panel in axes)
    lines = axes[panel].get_lines()
    if references and panel == 'accuracy':
        lines = [*lines, *axes['loss'].get_lines()[: len(references)]]
    number = min(len(lines), 2 * len(axes))
    figure.legend(handles=lines, loc='outside lower center', ncols=number)
    return figure


@script
def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    runs = read_runs(args.runs, args.pretrain_epochs)
    if not runs:
        raise ValueError(
            'None of the runs has a readable log. Name work folders of runs.'
        )
    logs = [log for _, log, _ in runs]
    accuracy = args.accuracy or accuracy_key(logs)
    for key, rows in ((args.loss, 'train'), (accuracy, 'val')):
        if key and not any(log.series(rows, key)[0] for log in logs):
            held = sorted({k for log in logs for r in getattr(log, rows) for k in r})
            problem = f'No {rows} row has "{key}"; the logs hold: {", ".join(held)}.'
            print(problem, file=sys.stderr)
    references = {}
    if args.reference is not None:
        references = reference_logs(args.reference)
    figure = draw(runs, args.loss, accuracy, args.smooth, args.x, references)
    save_figure(figure, args.out, dpi=160)
    plt.close(figure)
    print(f'wrote {args.out}')


if __name__ == '__main__':
    sys.exit(main())
