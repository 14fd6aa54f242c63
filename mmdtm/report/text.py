"""Values, durations and tables as text."""

import html
import statistics
from collections.abc import Iterable, Sequence

from mmdtm.report.run import Run

LABELS = {
    'accuracy/top1': 'top-1 (%)',
    'accuracy/top5': 'top-5 (%)',
    'mIoU': 'mIoU (%)',
    'mAcc': 'mAcc (%)',
    'aAcc': 'aAcc (%)',
    'knn_top1': 'k-NN top-1 (%)',
    'linear_top1': 'linear top-1 (%)',
    'images_per_second': 'images/s',
    'seconds_per_step': 's/step',
    'relative_throughput': 'relative speed',
}
DASH = '—'


def value_text(value: float | None) -> str:
    """A value with the digits that its size deserves."""
    if value is None:
        return DASH
    digits = 1 if abs(value) >= 200 else 2 if abs(value) >= 1 else 4
    return f'{value:.{digits}f}'


def setting_text(value: float | str) -> str:
    """A setting as one would type it."""
    return value if isinstance(value, str) else f'{value:g}'


def named_value(run: Run, name: str) -> str:
    """A run's value with its name; a dash if it has none."""
    if name not in run.metrics:
        return DASH
    return f'{LABELS.get(name, name)} {value_text(run.metrics[name])}'


def time_text(seconds: float | None) -> str:
    """A duration in its two largest units."""
    if seconds is None:
        return DASH
    if seconds < 60:
        return f'{seconds:.0f} s'
    minutes = round(seconds / 60)
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    if days:
        return f'{days} d {hours} h'
    return f'{hours} h {minutes} min' if hours else f'{minutes} min'


def spread_text(values: Sequence[float], digits: int) -> str:
    """Mean, and standard deviation over the seeds if there are several."""
    if not values:
        return '–'
    text = f'{statistics.fmean(values):.{digits}f}'
    if len(values) > 1:
        text += f' ± {statistics.stdev(values):.{digits}f}'
    return text


def markdown_table(
    header: Iterable[str], rows: Iterable[Iterable[str]], escape: bool = True
) -> list[str]:
    """Lines of a Markdown table; without ``escape`` its cells may hold Markdown."""
    header = list(header)
    lines = [header, ['---'] * len(header), *rows]
    show = markdown_text if escape else str
    return ['| ' + ' | '.join(map(show, line)) + ' |' for line in lines]


def markdown_text(text: str) -> str:
    """Text that neither ends a cell nor starts markup."""
    text = html.escape(' '.join(text.split()), quote=False)
    for mark in '\\`*_[]|':
        text = text.replace(mark, f'\\{mark}')
    return text
