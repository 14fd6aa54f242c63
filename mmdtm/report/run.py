"""What the report knows of one run."""

import math
from dataclasses import dataclass, field
from pathlib import Path

from mmdtm.report.paper import Cell, find_cells

# The value that stands for a run is the first of these that it has.
HEADLINES = (
    'accuracy/top1',
    'mIoU',
    'linear_top1',
    'knn_top1',
    'relative_throughput',
    'images_per_second',
    'loss',
)
MAX_POINTS = 400  # of one curve; more cannot be told apart on a page


@dataclass
class Run:
    """One run.

    Attributes:
        name: Path of the run below the folder that was asked for, or the name
            its result file gives.
        kind: ``'pre-training'``, ``'fine-tuning'``, ``'linear probe'``,
            ``'segmentation'``, ``'throughput'``, or what its result file says.
        folder: Where it was found.
        metrics: Last value of each metric.
        finished: Whether it reached its planned end; None if that is unknown.
        progress: How far it came, in words.
        seconds: Wall time of all its starts; None if unknown.
        chain: Names of the configs that made it, its first ancestor's first;
            empty if unknown.
        changes: Settings in which it, or an ancestor, differs from its config.
        settings: What is worth comparing: learning rate, weight decay, seed, ...
        curves: For each metric its points, (x, y).
        x_name: What x counts: ``'epoch'``, ``'iteration'``, ...
        pictures: Files and captions.
        record: What made it (:mod:`mmdtm.run_record`); None if unknown.
        smoke: Whether ``--smoke`` made it small, so that no value means anything.
    """

    name: str
    kind: str
    folder: Path
    metrics: dict[str, float] = field(default_factory=dict)
    finished: bool | None = None
    progress: str = ''
    seconds: float | None = None
    chain: tuple[str, ...] = ()
    changes: dict = field(default_factory=dict)
    settings: dict[str, str | float] = field(default_factory=dict)
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    x_name: str = 'epoch'
    pictures: list[tuple[Path, str]] = field(default_factory=list)
    record: dict | None = None
    smoke: bool = False

    @property
    def config(self) -> str:
        """Name of its own config; empty if unknown."""
        return self.chain[-1] if self.chain else ''

    @property
    def headline(self) -> str:
        """Name of the metric that stands for the run; empty if it has none."""
        known = [name for name in HEADLINES if name in self.metrics]
        return next(iter([*known, *self.metrics]), '')

    @property
    def cells(self) -> list[Cell]:
        """Cells of the paper's tables that the run may be compared with."""
        return find_cells(self.chain, self.metrics, self.changes)

    def tidy(self, problems: list[str]) -> None:
        """Drop what is not finite, with a message, and thin long curves."""
        for key, value in list(self.metrics.items()):
            if not math.isfinite(value):
                problems.append(f'{self.folder}: the last {key} is {value}.')
                del self.metrics[key]
        for key, points in self.curves.items():
            finite = [p for p in points if math.isfinite(p[0]) and math.isfinite(p[1])]
            self.curves[key] = _thinned(finite)


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Evenly chosen points, the first and the last among them."""
    if len(points) <= MAX_POINTS:
        return points
    step = (len(points) - 1) / (MAX_POINTS - 1)
    return [points[round(i * step)] for i in range(MAX_POINTS)]
