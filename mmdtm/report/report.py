"""One table of all runs beside the paper's tables: Markdown, JSON, HTML."""

import base64
import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from mmdtm.io import write_text
from mmdtm.report.paper import Cell, Table, paper_tables
from mmdtm.report.run import HEADLINES, Run
from mmdtm.report.runs import find_runs
from mmdtm.report.text import (
    DASH,
    LABELS,
    markdown_table,
    markdown_text,
    named_value,
    setting_text,
    time_text,
    value_text,
)

KINDS = ['pre-training', 'linear probe', 'fine-tuning', 'segmentation']
KINDS += ['grid search', 'throughput']
FIRST = ['Run', 'Kind', 'Value', 'Paper', 'Difference', 'Time', 'Status']
SUMMARY_HEADER = [*FIRST, 'Other values', 'Settings']
MADE_HEADER = ['Run', 'Configs', 'Command', 'Started', 'Code', 'Libraries', 'Machine']
MADE_HEADER += ['Teacher']
PICTURE_TYPES = {'.png': 'png', '.jpg': 'jpeg', '.jpeg': 'jpeg', '.webp': 'webp'}
MAX_PICTURE_BYTES = 8_000_000


@dataclass
class Report:
    """What :func:`build_report` found and wrote.

    Attributes:
        runs: Every run, by kind and name.
        problems: A message for each thing that could not be read.
        markdown, json, html: The files written; None before that.
        metrics: Names of all metrics, in the columns' order.
        matches: For each cell of the paper's tables the runs to compare with it.
    """

    runs: list[Run]
    problems: list[str]
    markdown: Path | None = None
    json: Path | None = None
    html: Path | None = None
    metrics: list[str] = field(init=False)
    matches: dict[Cell, list[Run]] = field(init=False)

    def __post_init__(self) -> None:
        order = {kind: i for i, kind in enumerate(KINDS)}
        self.runs.sort(key=lambda r: (order.get(r.kind, len(KINDS)), r.kind, r.name))
        used = {name for run in self.runs for name in run.metrics}
        names = [*HEADLINES, *(name for run in self.runs for name in run.metrics)]
        self.metrics = [name for name in dict.fromkeys(names) if name in used]
        trained = {run.record['id'] for run in self.runs if run.record}
        self.matches = {}
        for run in self.runs:
            record = run.record or {}
            again = record.get('test') and (record['parent'] or {}).get('id') in trained
            if run.finished is not False and not again:
                for cell in run.cells:
                    self.matches.setdefault(cell, []).append(run)

    def ours(self, cell: Cell) -> str:
        """What the runs came to that belong to a cell of the paper's."""
        runs = self.matches.get(cell, [])
        real = [run for run in runs if not run.smoke]
        values = [run.metrics[cell.metric or ''] for run in real or runs]
        if not values:
            return ''
        mean, std = statistics.fmean(values), statistics.pstdev(values)
        text = value_text(max(values) if cell.grid else mean)
        if len(values) > 1:
            around = f'{value_text(mean)} ± ' if cell.grid else '± '
            text += f' ({around}{std:.2f}, {len(values)} runs)'
        return text if real else f'{text} (smoke)'

    def header(self) -> list[str]:
        """Names of the table's columns: of FIRST, of each metric, and settings."""
        return [*FIRST, *(LABELS.get(name, name) for name in self.metrics), 'Settings']

    def cells(self, run: Run) -> list[tuple[str, float | str | None]]:
        """A run's row: what to show, and what to sort by (None comes last)."""
        ours = run.metrics.get(run.headline)
        paper = paper_value(run)
        printed = dict.fromkeys(cell.printed for cell in paper_cells(run))
        difference = None
        if ours is not None and paper is not None and not run.smoke:
            difference = ours - paper
        settings = ', '.join(f'{k} {setting_text(v)}' for k, v in run.settings.items())
        status = 'finished' if run.finished else run.progress
        if run.finished is False:
            status = f'unfinished: {run.progress}'.removesuffix(': ')
        if run.smoke:
            status = f'smoke run, {status}'
        return [
            (run.name, run.name),
            (run.kind, run.kind),
            (named_value(run, run.headline), ours),
            (' or '.join(printed) or DASH, paper),
            (DASH if difference is None else f'{difference:+.2f}', difference),
            (time_text(run.seconds), run.seconds),
            (status, status),
            *(
                (value_text(run.metrics.get(name)), run.metrics.get(name))
                for name in self.metrics
            ),
            (settings or DASH, settings),
        ]

    def summary(self, run: Run) -> list[str]:
        """A run's row where there is no room for each metric (SUMMARY_HEADER)."""
        texts = [text for text, _ in self.cells(run)]
        others = [
            named_value(run, name)
            for name in self.metrics
            if name in run.metrics and name != run.headline
        ]
        return [*texts[: len(FIRST)], ', '.join(others) or DASH, texts[-1]]

    def table_rows(self, table: Table) -> list[list[str]]:
        """A table of the paper's: what is printed, and what runs here came to."""
        rows = []
        for name, cells in table.rows.items():
            ours = [self.ours(cell) for cell in cells]
            rows.append([name, *map(str, cells)])
            if any(ours):
                rows.append(['here', *(text or DASH for text in ours)])
        return rows

    def to_markdown(self) -> str:
        """The table, the problems, what made the runs, and the paper's tables."""
        lines = ['# Runs', '']
        lines += markdown_table(SUMMARY_HEADER, map(self.summary, self.runs))
        if self.problems:
            lines += ['', '## Left out', '']
            lines += [f'- {markdown_text(problem)}' for problem in self.problems]
        lines += ['', "## The paper's tables", '']
        for table in paper_tables().values():
            lines += [f'### Table {table.number}: {markdown_text(table.title)}', '']
            lines += markdown_table(['', *table.columns], self.table_rows(table))
            lines += ['', *(f'- {markdown_text(note)}' for note in table.notes), '']
        made = [made_cells(run) for run in self.runs if run.record]
        lines += ['## What made the runs', '', *markdown_table(MADE_HEADER, made)]
        return '\n'.join(lines) + '\n'

    def to_json(self) -> str:
        """All of it for programs; curves included."""
        kept = 'name kind config chain finished progress metrics headline seconds'
        kept += ' settings changes x_name curves record'
        runs = [
            {name: getattr(run, name) for name in kept.split()}
            | dict(folder=str(run.folder), paper=paper_value(run))
            for run in self.runs
        ]
        cells = [
            {name: getattr(cell, name) for name in Cell.__dataclass_fields__}
            | dict(runs=[run.name for run in self.matches.get(cell, [])])
            for table in paper_tables().values()
            for cell in table.cells
        ]
        return json.dumps(
            dict(runs=runs, problems=self.problems, paper=cells), indent=1
        )

    def to_html(self) -> str:
        """One page that needs no other file and no network.

        Whatever comes from a run is escaped: as text of an element, as an
        attribute, or inside the JSON that the page's script reads.
        """
        finished = sum(run.finished is True for run in self.runs)
        summary = f'{len(self.runs)} runs, {finished} finished'
        if self.problems:
            summary += f', {len(self.problems)} left out'
        pictures = [(run, *picture) for run in self.runs for picture in run.pictures]
        several = len({id(run) for run, _, _ in pictures}) > 1
        page = Environment(autoescape=True, undefined=StrictUndefined)
        page.policies['json.dumps_kwargs'] = dict(allow_nan=False)
        text = (files(__package__) / 'page.html').read_text(encoding='utf-8')
        return page.from_string(text).render(
            report=self,
            summary=summary,
            tables=paper_tables().values(),
            made_header=MADE_HEADER,
            made_cells=made_cells,
            pictures=[
                (f'{run.name}: ' * several + caption, file, _data(file))
                for run, file, caption in pictures
            ],
            curves=self._curves(),
        )

    def _curves(self) -> list[dict]:
        found = []
        for run in self.runs:
            curves = {LABELS.get(k, k): p for k, p in run.curves.items() if p}
            paper = paper_value(run)
            line = [LABELS.get(run.headline, run.headline), paper]
            row = dict(name=run.name, kind=run.kind, x=run.x_name, curves=curves)
            found.append(row | dict(paper=None if paper is None else line))
        return found


def build_report(work_dirs: Iterable[str | Path], out: str | Path) -> Report:
    """Collect all runs below ``work_dirs`` and write the report.

    Args:
        work_dirs: Work folders, or folders of work folders, searched all the way
            down: mmengine's logs, ``run.json`` records, ``result.json`` files
            (``write_result``), and the JSON of tools/benchmark.
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
    report = Report(runs, problems)
    report.markdown, report.json, report.html = (
        Path(out) / f'report.{kind}' for kind in ('md', 'json', 'html')
    )
    write_text(report.markdown, report.to_markdown())
    write_text(report.json, report.to_json())
    write_text(report.html, report.to_html())
    return report


def paper_cells(run: Run) -> list[Cell]:
    """What the paper prints for the run's headline."""
    return [cell for cell in run.cells if cell.metric == run.headline]


def paper_value(run: Run) -> float | None:
    """The first printed value for the run's headline; None if there is none."""
    values = (cell.value for cell in paper_cells(run))
    return next((float(v) for v in values if isinstance(v, (int, float))), None)


def made_cells(run: Run) -> list[str]:
    """What made a run, as text (MADE_HEADER)."""
    record = run.record or {}
    start = record['starts'][-1]
    code = start.get('code') or {}
    changed = ', changed since' if code.get('changed') else ''
    commit = f' {code["commit"][:10]}{changed}' if code.get('commit') else ''
    hardware = start.get('hardware') or {}
    machine = ', '.join(sorted(set(hardware.get('gpus') or ()))) or 'CPU'
    hashes = [t['weights_sha256'] for t in record.get('teachers') or ()]
    hashes = hashes or list((record.get('files') or {}).values())
    return [
        run.name,
        ' → '.join(run.chain),
        str(start.get('command', DASH)),
        str(start.get('time', DASH)),
        f'mmdtm {code.get("version", "?")}{commit}',
        ', '.join(f'{k} {v}' for k, v in (start.get('versions') or {}).items()),
        f'{hardware.get("host", "?")}: {machine} x {hardware.get("processes", 1)}',
        ', '.join(str(text)[:12] for text in hashes) or DASH,
    ]


def _data(file: Path) -> str:
    """A picture's file as a URL; '' if a page cannot show it."""
    kind = PICTURE_TYPES.get(file.suffix.lower())
    if kind is None or file.stat().st_size > MAX_PICTURE_BYTES:
        return ''
    return f'data:image/{kind};base64,{base64.b64encode(file.read_bytes()).decode()}'
