"""One table of all runs beside the paper's figures: Markdown, JSON, HTML."""

import base64
import html
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from .runs import HEADLINES, Run, find_runs, write_atomically

KINDS = (
    'pre-training',
    'linear probe',
    'fine-tuning',
    'segmentation',
    'transfer',
    'grid search',
    'throughput',
)
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
FIRST = ['Run', 'Kind', 'Figure', 'Paper', 'Difference', 'Time', 'Status']
SUMMARY_HEADER = [*FIRST, 'Other figures', 'Settings']
PICTURE_TYPES = {'.png': 'png', '.jpg': 'jpeg', '.jpeg': 'jpeg', '.webp': 'webp'}
MAX_PICTURE_BYTES = 8_000_000


@dataclass
class Report:
    """What :func:`build_report` found and wrote.

    Attributes:
        runs: Every run, by kind and name.
        problems: A message for each thing that could not be read.
        paper: Rows of paper.json: table, row, config, metric, figure, source.
        markdown, json, html: The files written; None before that.
        metrics: Names of all figures, in the columns' order.
    """

    runs: list[Run]
    problems: list[str]
    paper: list[dict]
    markdown: Path | None = None
    json: Path | None = None
    html: Path | None = None
    metrics: list[str] = field(init=False)

    def __post_init__(self) -> None:
        order = {kind: i for i, kind in enumerate(KINDS)}
        self.runs.sort(key=lambda r: (order.get(r.kind, len(KINDS)), r.kind, r.name))
        used = {name for run in self.runs for name in run.metrics}
        names = [*HEADLINES, *(name for run in self.runs for name in run.metrics)]
        self.metrics = [name for name in dict.fromkeys(names) if name in used]

    def paper_figure(self, run: Run) -> float | None:
        """What the paper prints for the run's headline figure, if that is known."""
        for row in self.paper:
            if run.config and (row['config'], row['metric']) == (
                run.config,
                run.headline,
            ):
                return None if row['figure'] is None else float(row['figure'])
        return None

    def header(self) -> list[str]:
        """Names of the table's columns: of FIRST, of each figure, and settings."""
        return [*FIRST, *(LABELS.get(name, name) for name in self.metrics), 'Settings']

    def cells(self, run: Run) -> list[tuple[str, float | str | None]]:
        """A run's row: what to show, and what to sort by (None comes last)."""
        paper = self.paper_figure(run)
        ours = run.metrics.get(run.headline)
        difference = None if paper is None or ours is None else ours - paper
        settings = ', '.join(f'{k} {setting_text(v)}' for k, v in run.settings.items())
        status = 'finished' if run.finished else run.progress
        if run.finished is False:
            status = f'unfinished: {run.progress}'.removesuffix(': ')
        return [
            (run.name, run.name),
            (run.kind, run.kind),
            (named_figure(run, run.headline), ours),
            (DASH if paper is None else f'{paper:g}', paper),
            (DASH if difference is None else f'{difference:+.2f}', difference),
            (time_text(run.seconds), run.seconds),
            (status, status),
            *(
                (figure_text(run.metrics.get(name)), run.metrics.get(name))
                for name in self.metrics
            ),
            (settings or DASH, settings),
        ]

    def summary(self, run: Run) -> list[str]:
        """A run's row where there is no room for each figure (SUMMARY_HEADER)."""
        texts = [text for text, _ in self.cells(run)]
        others = [
            named_figure(run, name)
            for name in self.metrics
            if name in run.metrics and name != run.headline
        ]
        return [*texts[: len(FIRST)], ', '.join(others) or DASH, texts[-1]]

    def to_markdown(self) -> str:
        """The table, the problems, and the paper's figures."""
        lines = ['# Runs', '']
        lines += markdown_table(SUMMARY_HEADER, map(self.summary, self.runs))
        if self.problems:
            lines += ['', '## Left out', '']
            lines += [f'- {markdown_text(problem)}' for problem in self.problems]
        lines += ['', "## The paper's figures", '']
        lines += markdown_table(PAPER_HEADER, map(paper_cells, self.paper))
        return '\n'.join(lines) + '\n'

    def to_json(self) -> str:
        """All of it for programs; curves included."""
        return json.dumps(
            dict(
                runs=[
                    dict(
                        name=run.name,
                        kind=run.kind,
                        folder=str(run.folder),
                        config=run.config,
                        finished=run.finished,
                        progress=run.progress,
                        metrics=run.metrics,
                        headline=run.headline,
                        paper=self.paper_figure(run),
                        seconds=run.seconds,
                        settings=run.settings,
                        x_name=run.x_name,
                        curves=run.curves,
                    )
                    for run in self.runs
                ],
                problems=self.problems,
                paper=self.paper,
            ),
            indent=1,
        )

    def to_html(self) -> str:
        """One page that needs no other file and no network.

        Whatever comes from a run is escaped: as text of an element, as an
        attribute, or inside the JSON that the page's script reads.
        """
        page = (files(__package__) / 'page.html').read_text(encoding='utf-8')
        finished = sum(run.finished is True for run in self.runs)
        summary = f'{len(self.runs)} runs, {finished} finished'
        if self.problems:
            summary += f', {len(self.problems)} left out'
        pictures = [(run, *picture) for run in self.runs for picture in run.pictures]
        several = len({id(run) for run, _, _ in pictures}) > 1
        parts = {
            '<!--SUMMARY-->': html.escape(summary),
            '<!--HEAD-->': ''.join(
                f'<th scope="col">{html.escape(name)}</th>' for name in self.header()
            ),
            '<!--ROWS-->': '\n'.join(map(self._html_row, range(len(self.runs)))),
            '<!--PICTURES-->': '\n'.join(
                _html_picture(file, f'{run.name}: {caption}' if several else caption)
                for run, file, caption in pictures
            ),
            '<!--PROBLEMS-->': '\n'.join(
                f'<li>{html.escape(problem)}</li>' for problem in self.problems
            ),
            '<!--PAPER-->': '\n'.join(
                f'<tr>{"".join(map(_html_cell, paper_cells(row)))}</tr>'
                for row in self.paper
            ),
            '<!--DATA-->': _script_json(self._curves()),
        }
        # Cut at the markers once: what a run brings in is never looked at again.
        for marker in parts:
            page = page.replace(marker, f'\0{marker}\0')
        return ''.join(parts.get(piece, piece) for piece in page.split('\0'))

    def _html_row(self, number: int) -> str:
        run = self.runs[number]
        cells = ''.join(_html_cell(text, value) for text, value in self.cells(run)[1:])
        name = html.escape(run.name)
        return (
            f'<tr data-run="{number}" data-kind="{html.escape(run.kind)}">'
            f'<th scope="row" title="{name}" data-sort="{name}">{name}</th>{cells}</tr>'
        )

    def _curves(self) -> list[dict]:
        return [
            dict(
                name=run.name,
                kind=run.kind,
                x=run.x_name,
                curves={
                    LABELS.get(key, key): points
                    for key, points in run.curves.items()
                    if points
                },
                paper=None
                if self.paper_figure(run) is None
                else [LABELS.get(run.headline, run.headline), self.paper_figure(run)],
            )  # fmt: skip
            for run in self.runs
        ]


def build_report(work_dirs: Iterable[str | Path], out: str | Path) -> Report:
    """Collect all runs below ``work_dirs`` and write the report.

    Args:
        work_dirs: Work dirs, or folders of work dirs, searched all the way
            down: mmengine's logs, ``result.json`` files (``write_result``),
            and the JSON of tools/benchmark.
        out: Folder for ``report.md``, ``report.json`` and ``report.html``.

    Returns:
        The report: ``runs``, ``problems`` (messages; one bad file never hides
        the rest), and the paths ``markdown``, ``json`` and ``html``.

    Raises:
        ValueError: If there is not one run to report.
    """
    runs, problems = find_runs(work_dirs)
    if not runs:
        raise ValueError('\n'.join(['Nothing to report.', *problems]))
    paper = json.loads((files(__package__) / 'paper.json').read_text(encoding='utf-8'))
    report = Report(runs, problems, paper['rows'])
    out = Path(out)
    report.markdown = out / 'report.md'
    report.json = out / 'report.json'
    report.html = out / 'report.html'
    write_atomically(report.markdown, report.to_markdown())
    write_atomically(report.json, report.to_json())
    write_atomically(report.html, report.to_html())
    return report


def figure_text(value: float | None) -> str:
    """A figure with the digits that its size deserves."""
    if value is None:
        return DASH
    digits = 1 if abs(value) >= 200 else 2 if abs(value) >= 1 else 4
    return f'{value:.{digits}f}'


def setting_text(value: float | str) -> str:
    """A setting as one would type it."""
    return value if isinstance(value, str) else f'{value:g}'


def named_figure(run: Run, name: str | None) -> str:
    """A run's figure with its name."""
    if name is None:
        return DASH
    return f'{LABELS.get(name, name)} {figure_text(run.metrics[name])}'


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


PAPER_HEADER = ('Table', 'Row', 'Figure', 'Printed', 'Where', 'Config')


def paper_cells(row: dict) -> list[str]:
    """A row of the paper's figures, as text."""
    return [
        row['table'],
        row['row'],
        LABELS.get(row['metric'], row['metric']),
        DASH if row['figure'] is None else f'{row["figure"]:g}',
        row.get('source', DASH),
        row['config'] or DASH,
    ]


def markdown_table(header: Iterable[str], rows: Iterable[list[str]]) -> list[str]:
    """Lines of a Markdown table."""
    header = list(header)
    lines = [header, ['---'] * len(header), *rows]
    return ['| ' + ' | '.join(map(markdown_text, line)) + ' |' for line in lines]


def markdown_text(text: str) -> str:
    """Text that neither ends a cell nor starts markup."""
    text = html.escape(' '.join(text.split()), quote=False)
    for mark in '\\`*_[]|':
        text = text.replace(mark, f'\\{mark}')
    return text


def _html_cell(text: str, value: float | str | None = '') -> str:
    number = ' class="number"' if value is None or isinstance(value, float) else ''
    sort = '' if value is None else html.escape(str(value))
    return f'<td{number} data-sort="{sort}">{html.escape(text)}</td>'


def _html_picture(file: Path, caption: str) -> str:
    kind = PICTURE_TYPES.get(file.suffix.lower())
    text = html.escape(caption)
    if kind is None or file.stat().st_size > MAX_PICTURE_BYTES:
        reason = f'{file.name} is no PNG, JPEG or WebP below 8 MB'
        return (
            f'<figure><figcaption>{text} ({html.escape(reason)})</figcaption></figure>'
        )
    data = base64.b64encode(file.read_bytes()).decode()
    return (
        f'<figure><img alt="{text}" src="data:image/{kind};base64,{data}">'
        f'<figcaption>{text}</figcaption></figure>'
    )


def _script_json(data) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(data, separators=(',', ':'), allow_nan=False)
    return text.replace('&', '\\u0026').replace('<', '\\u003c').replace('>', '\\u003e')
