r"""Draw training curves as the paper's Figure 5 does, from mmengine's own logs.

Two panels, training loss and validation accuracy against the epoch, and a third,
accuracy against the length of pre-training, where that is known for at least
two runs::

    python tools/analysis/plot_training.py \
        DTM=work_dirs/ft_dtm_100e DTM=work_dirs/ft_dtm_300e \
        baseline=work_dirs/ft_base_100e baseline=work_dirs/ft_base_300e \
        --pretrain-epochs 100 300 100 300 --out fig5.png

A run is a work dir, written NAME=WORK_DIR or WORK_DIR alone. Runs of one name share
a colour and make one line in the third panel.
"""

import argparse
import sys
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
from matplotlib.ticker import MaxNLocator  # noqa: E402

from mmdtm.training_log import (  # noqa: E402
    TrainingLog,
    pretrained_epochs,
    read_training_log,
)
from mmdtm.visualization import LINE_COLORS  # noqa: E402

LINE_STYLES = ('-', '--', ':', '-.')
MARKERS = 'osD^vPX'


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'runs', nargs='+', metavar='RUN', help='[NAME=]WORK_DIR or a log file'
    )
    parser.add_argument(
        '--out',
        default='training.png',
        type=Path,
        help='picture to write; .png, .pdf or .svg (default: %(default)s)',
    )
    parser.add_argument(
        '--loss',
        default='loss',
        metavar='KEY',
        help='training scalar of the first panel (default: %(default)s)',
    )
    parser.add_argument(
        '--accuracy',
        metavar='KEY',
        help='validation scalar of the second panel (default: accuracy/top1, or '
        'the first one that the logs hold)',
    )
    parser.add_argument(
        '--smooth',
        default=1,
        type=int,
        metavar='ROWS',
        help='moving average over this many logged losses (default: %(default)s)',
    )
    parser.add_argument(
        '--pretrain-epochs',
        nargs='+',
        type=float,
        metavar='EPOCHS',
        help="each run's pre-training length, in the order of the runs (default: "
        "read from the checkpoint's name in the run's config)",
    )
    parser.add_argument(
        '--x',
        choices=('epoch', 'pretrain-epochs'),
        help='only the panels against the epoch, or only the one against the '
        'pre-training length (default: all that the logs allow)',
    )
    args = parser.parse_args(argv)
    if args.smooth < 1:
        parser.error(f'--smooth must be at least 1, got {args.smooth}.')
    if args.pretrain_epochs and len(args.pretrain_epochs) != len(args.runs):
        parser.error(
            f'--pretrain-epochs needs one number for each of the {len(args.runs)} '
            f'runs, got {len(args.pretrain_epochs)}.'
        )
    return args


def read_runs(
    runs: list[str], lengths: list[float] | None
) -> list[tuple[str, TrainingLog, float | None]]:
    """Read every run that can be read; say on stderr what is wrong with others.

    Args:
        runs: ``'NAME=WORK_DIR'`` or ``'WORK_DIR'``.
        lengths: Pre-training epochs of each run; None to infer them.

    Returns:
        Name, log and pre-training epochs (None if unknown) of each readable run.
    """
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
    values = np.asarray(values, float)
    padded = np.concatenate([np.full(rows - 1, np.nan), values])
    windows = np.lib.stride_tricks.sliding_window_view(padded, rows)
    known = np.isfinite(windows)
    sums, counts = np.where(known, windows, 0.0).sum(1), known.sum(1)
    # Where a value is none, the curve has a gap, and the next ones go on.
    return np.where(np.isfinite(values), sums / np.maximum(counts, 1), np.nan)


def draw(
    runs: list[tuple[str, TrainingLog, float | None]],
    loss: str,
    accuracy: str | None,
    rows: int = 1,
    x: str | None = None,
) -> plt.Figure:
    """Draw the panels.

    Args:
        runs: Name, log and pre-training epochs of each run.
        loss: Key of the training rows.
        accuracy: Key of the validation rows; None if the logs have none.
        rows: Window of the moving average of the loss.
        x: ``'epoch'`` or ``'pretrain-epochs'`` for those panels alone.

    Returns:
        The figure.

    Raises:
        ValueError: If there is nothing to draw against the asked-for axis.
    """
    lengths: dict[str, list[tuple[float, float]]] = {}
    for name, log, length in runs:
        values = log.series('val', accuracy)[1] if accuracy else []
        if length is not None and values:
            lengths.setdefault(name, []).append((length, values[-1]))
    by_length = len({epochs for points in lengths.values() for epochs, _ in points}) > 1
    panels = [] if x == 'pretrain-epochs' else ['loss', 'accuracy']
    if not accuracy and 'accuracy' in panels:
        panels.remove('accuracy')
    if x == 'pretrain-epochs' and not by_length:
        raise ValueError(
            'Accuracy against pre-training length needs validated runs of at least '
            'two lengths. Give the lengths with --pretrain-epochs where the '
            "configs' checkpoint names do not tell them."
        )
    if by_length and x != 'epoch':
        panels.append('length')

    names = list(dict.fromkeys(name for name, _, _ in runs))
    colors = {name: LINE_COLORS[i % len(LINE_COLORS)] for i, name in enumerate(names)}
    markers = {name: MARKERS[i % len(MARKERS)] for i, name in enumerate(names)}
    figure, axes = plt.subplots(
        1,
        len(panels),
        figsize=(4.6 * len(panels), 3.9),
        squeeze=False,
        layout='constrained',
    )
    by_panel = dict(zip(panels, axes[0], strict=True))
    seen: dict[str, int] = {}
    for name, log, length in runs:
        repeat = seen[name] = seen.get(name, -1) + 1
        label = name if length is None else f'{name}, {length:g} ep. pre-training'
        style = dict(
            color=colors[name],
            label=label,
            linestyle=LINE_STYLES[repeat % len(LINE_STYLES)],
        )
        if 'loss' in by_panel:
            position, values = log.series('train', loss)
            if position:
                by_panel['loss'].plot(position, smooth(values, rows), **style)
        if 'accuracy' in by_panel:
            position, values = log.series('val', accuracy)
            if position:
                by_panel['accuracy'].plot(
                    position,
                    values,
                    marker=markers[name],
                    markersize=4,
                    markevery=max(1, len(position) // 12),
                    **style,
                )
    for name, points in lengths.items():
        if 'length' in by_panel:
            by_panel['length'].plot(
                *zip(*sorted(points), strict=True),
                color=colors[name],
                marker=markers[name],
                label=name,
            )

    counts_epochs = any(log.iters_per_epoch for _, log, _ in runs)
    labels = {
        'loss': ('epoch' if counts_epochs else 'iteration', f'training {loss}'),
        'accuracy': ('epoch' if counts_epochs else 'iteration', accuracy),
        'length': ('pre-training epochs', f'{accuracy}, last validation'),
    }
    for panel, axis in by_panel.items():
        axis.set_xlabel(labels[panel][0])
        axis.set_ylabel(labels[panel][1])
        if panel == 'length':
            axis.set_xticks(
                sorted({epochs for points in lengths.values() for epochs, _ in points})
            )
        else:
            axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
        axis.grid(color='0.9')
        axis.set_axisbelow(True)
        axis.spines[['top', 'right']].set_visible(False)
    # The accuracy's lines have markers too, so they serve for all panels.
    for panel in ('accuracy', 'loss', 'length'):
        if panel in by_panel:
            handles, texts = by_panel[panel].get_legend_handles_labels()
            if handles:
                break
    if handles:
        figure.legend(
            handles,
            texts,
            loc='outside lower center',
            frameon=False,
            ncols=min(len(handles), 2 * len(panels)),
        )
    return figure


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    runs = read_runs(args.runs, args.pretrain_epochs)
    if not runs:
        print('None of the runs has a readable log.', file=sys.stderr)
        return 1
    logs = [log for _, log, _ in runs]
    accuracy = args.accuracy or accuracy_key(logs)
    for key, rows in ((args.loss, 'train'), (accuracy, 'val')):
        if key and not any(log.series(rows, key)[0] for log in logs):
            held = sorted(
                {k for log in logs for row in getattr(log, rows) for k in row}
            )
            print(
                f'No {rows} row has "{key}"; the logs hold: {", ".join(held)}.',
                file=sys.stderr,
            )
    try:
        figure = draw(runs, args.loss, accuracy, args.smooth, args.x)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out, dpi=160)
    plt.close(figure)
    print(f'wrote {args.out}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
