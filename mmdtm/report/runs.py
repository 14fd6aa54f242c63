"""Find runs under work dirs, and read what each has come to.

Two kinds of files are read, and none is executed: mmengine's logs, and JSON
files in the form that :func:`write_result` writes and docs/report.md describes.
"""

import ast
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from mmdtm.training_log import TrainingLog, read_training_log

# The figure that stands for a run, the first of these that it has.
HEADLINES = (
    'accuracy/top1',
    'mIoU',
    'linear_top1',
    'knn_top1',
    'images_per_second',
    'loss',
)
TRANSFER_SETS = (
    'NABirds',
    'CUB',
    'StanfordDogs',
    'CIFAR10',
    'CIFAR100',
    'OfficialCIFAR10',
    'OfficialCIFAR100',
    'OfficialCUB',
    'INaturalist',
)
TIMESTAMP = re.compile(r'\d{8}_\d{6}$')
LOGGED_TIME = re.compile(r'^(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) - ', re.MULTILINE)
NOT_METRICS = {'step', 'iter', 'epoch', 'time', 'data_time', 'memory', 'lr', 'base_lr'}
MAX_POINTS = 400  # of one curve; more cannot be told apart on a page


@dataclass
class Run:
    """What the report knows of one run.

    Attributes:
        name: Path of the run below the folder that was asked for, or the name
            its result file gives.
        kind: ``'pre-training'``, ``'fine-tuning'``, ``'linear probe'``,
            ``'transfer'``, ``'segmentation'``, ``'throughput'``, or what its
            result file says.
        folder: Where it was found.
        metrics: Last value of each figure.
        finished: Whether it reached its planned end; None if that is unknown.
        progress: How far it came, in words.
        seconds: Wall time of all its starts; None if unknown.
        config: Name of its config without ``.py``; empty if unknown.
        settings: What is worth comparing: learning rate, weight decay, seed, ...
        curves: For each figure its points, (x, y).
        x_name: What x counts: ``'epoch'``, ``'iteration'``, ...
        pictures: Files and captions.
    """

    name: str
    kind: str
    folder: Path
    metrics: dict[str, float] = field(default_factory=dict)
    finished: bool | None = None
    progress: str = ''
    seconds: float | None = None
    config: str = ''
    settings: dict[str, str | float] = field(default_factory=dict)
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    x_name: str = 'epoch'
    pictures: list[tuple[Path, str]] = field(default_factory=list)

    @property
    def headline(self) -> str | None:
        """Name of the figure that stands for the run; None if it has none."""
        known = [name for name in HEADLINES if name in self.metrics]
        return next(iter([*known, *self.metrics]), None)


def find_runs(roots: Iterable[str | Path]) -> tuple[list[Run], list[str]]:
    """Read every run below the given folders.

    Args:
        roots: Work dirs, or folders of work dirs.

    Returns:
        The runs in the order of their paths, and a message for each thing that
        could not be read; one bad file never hides the other runs.
    """
    runs, problems = [], []
    roots = [Path(root) for root in roots]
    for root in roots:
        if not root.is_dir():
            problems.append(f'{root}: no such folder.')
            continue
        found = len(runs), len(problems)
        for folder, subfolders, files in os.walk(root):
            starts = [name for name in subfolders if TIMESTAMP.match(name)]
            subfolders[:] = sorted(
                name
                for name in set(subfolders) - set(starts)
                if not name.startswith('.') and name != 'vis_data'
            )
            folder = Path(folder)
            name = folder.relative_to(root).as_posix()
            if name == '.':
                name = root.resolve().name
            elif len(roots) > 1:
                name = f'{root.resolve().name}/{name}'
            runs += _read_folder(folder, name, bool(starts), sorted(files), problems)
        if found == (len(runs), len(problems)):
            problems.append(
                f'{root}: no run in it. A run has mmengine logs '
                '(TIMESTAMP/vis_data/scalars.json) or a result.json.'
            )
    return runs, problems


def read_run(folder: Path, name: str = '', problems: list[str] | None = None) -> Run:
    """Read one mmengine work dir.

    Args:
        folder: The work dir.
        name: What to call the run; the folder's name by default.
        problems: Gets a message for each thing that was left out.

    Raises:
        FileNotFoundError: If there is no log.
        ValueError: If the log has no readable row.
    """
    problems = [] if problems is None else problems
    config_file = max(folder.glob('*.py'), key=os.path.getmtime, default=None)
    config = _read_config(config_file, problems) if config_file else {}
    try:
        log = read_training_log(folder)
    except (FileNotFoundError, ValueError):
        metrics = _test_metrics(folder)
        if not metrics:
            raise
        log = TrainingLog(folder)
    else:
        metrics = {}
    if log.broken:
        more = f' and {len(log.broken) - 1} more' if len(log.broken) > 1 else ''
        problems.append(
            f'{log.broken[0]}{more}: no readable row (a log cut off in the middle?); '
            'the other rows are used.'
        )
    run = Run(name or folder.resolve().name, '', folder, metrics)
    run.config = config_file.stem if config_file else ''
    run.x_name = 'epoch' if log.iters_per_epoch or not log.train else 'iteration'
    _add_curves(run, log, problems)
    run.kind = _kind(config, run.metrics)
    run.settings = _settings(config)
    run.seconds = _wall_time(folder) or _iteration_time(log)
    _add_progress(run, log, config)
    return run


def write_result(
    folder: str | Path,
    kind: str,
    name: str,
    metrics: Mapping[str, float],
    seconds: float | None = None,
    **more,
) -> Path:
    """Write ``result.json``, from which the report takes a row.

    Args:
        folder: The run's folder, made if need be. Beside mmengine's logs the
            file adds to that run, alone it is a run of its own.
        kind: Such as ``'linear probe'``; the report filters by it.
        name: What the row is called.
        metrics: Figures by name; ``accuracy/top1``, ``mIoU``, ``knn_top1``,
            ``linear_top1``, ``images_per_second`` and ``loss`` come first.
        seconds: What it took.
        **more: The optional fields of docs/report.md: ``config``,
            ``settings``, ``curves``, ``x_name``, ``pictures``, ``finished``.

    Returns:
        The path of the file, which appears whole or not at all.
    """
    path = Path(folder) / 'result.json'
    content = dict(kind=kind, name=name, metrics=dict(metrics), seconds=seconds, **more)
    write_atomically(path, json.dumps(content, indent=2) + '\n')
    return path


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'{path.name}.{os.getpid()}.part')
    part.write_text(text, encoding='utf-8')
    part.replace(path)


def _read_folder(
    folder: Path, name: str, has_starts: bool, files: list[str], problems: list[str]
) -> list[Run]:
    results, more = [], []
    for file in files:
        if file.endswith('.json'):
            found = _read_results(folder / file, name, problems)
            if has_starts and file == 'result.json' and len(found) == 1:
                more = found
            else:
                results += found
    if not has_starts:
        return results
    try:
        run = read_run(folder, name, problems)
    except (OSError, TypeError, ValueError) as error:
        problems.append(str(error))
        return more + results
    for result in more:  # one result.json beside logs is about the same run
        run.kind, run.name = result.kind, result.name
        run.config = result.config or run.config
        run.metrics |= result.metrics
        run.settings |= result.settings
        run.curves |= result.curves
        run.pictures = result.pictures
        run.seconds = run.seconds if result.seconds is None else result.seconds
    return [run, *results]


def _read_results(path: Path, name: str, problems: list[str]) -> list[Run]:
    """Rows of a JSON file, of ``metrics`` or of a benchmark's ``rows``.

    A file that is readable JSON of another kind is no result and no problem.
    """
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        problems.append(f'{path}: not readable as JSON ({error}); left out.')
        return []
    items = content if isinstance(content, list) else [content]
    items = [item for item in items if isinstance(item, dict) and 'kind' in item]
    results = []
    for item in items:
        rows = [item] if 'metrics' in item else item.get('rows', [])
        try:
            results += [_result(item, row, path, name, problems) for row in rows]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            problems.append(
                f'{path}: not a result as docs/report.md describes it ({error!r}); '
                'left out.'
            )
    return results


def _result(item: dict, row: dict, path: Path, name: str, problems: list[str]) -> Run:
    metrics = row.get('metrics')
    if metrics is None:  # tools/benchmark: the figures stand in the row itself
        metrics = {k: v for k, v in row.items() if isinstance(v, (int, float))}
    seconds = row.get('seconds')
    # A benchmark's rows are called by their configs.
    config = row.get('config', '' if row is item else row.get('name', ''))
    run = Run(
        str(row.get('name', name)),
        str(item['kind']),
        path.parent,
        {str(k): float(v) for k, v in metrics.items()},
        finished=bool(row.get('finished', True)),
        seconds=None if seconds is None else float(seconds),
        config=str(config).split('/')[-1].removesuffix('.py'),
        settings={
            str(k): v if isinstance(v, (int, float)) else str(v)
            for k, v in row.get('settings', {}).items()
        },
        x_name=str(row.get('x_name', 'epoch')),
    )
    for key, points in row.get('curves', {}).items():
        run.curves[str(key)] = _thinned([(float(x), float(y)) for x, y in points])
    for picture in row.get('pictures', []):
        file = (path.parent / picture['file']).resolve()
        if file.is_relative_to(path.parent.resolve()) and file.is_file():
            run.pictures.append((file, str(picture.get('caption', file.name))))
        else:
            problems.append(
                f'{path}: picture {picture["file"]} is not a file below '
                f'{path.parent}; left out.'
            )
    _drop_not_finite(run, problems)
    return run


def _add_curves(run: Run, log: TrainingLog, problems: list[str]) -> None:
    for row in log.val:
        for key, value in row.items():
            if _is_figure(key, value):
                key = key.removeprefix('probe/')  # FeatureProbeHook's
                run.metrics[key] = float(value)
                run.curves.setdefault(key, []).append(
                    (float(row['step']), float(value))
                )
    losses = [row for row in log.train if isinstance(row.get('loss'), (int, float))]
    if losses:
        run.metrics['loss'] = float(losses[-1]['loss'])
        xs, ys = log.series('train', 'loss')
        run.curves['loss'] = list(zip(xs, ys, strict=True))
    _drop_not_finite(run, problems)
    run.curves = {key: _thinned(points) for key, points in run.curves.items()}


def _drop_not_finite(run: Run, problems: list[str]) -> None:
    for key, value in list(run.metrics.items()):
        if not math.isfinite(value):
            problems.append(f'{run.folder}: the last {key} is {value}.')
            del run.metrics[key]
    for key, points in run.curves.items():
        run.curves[key] = [
            (x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)
        ]


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Evenly chosen points, the first and the last among them."""
    if len(points) <= MAX_POINTS:
        return points
    step = (len(points) - 1) / (MAX_POINTS - 1)
    return [points[round(i * step)] for i in range(MAX_POINTS)]


def _test_metrics(folder: Path) -> dict[str, float]:
    """What tools/test.py left: TIMESTAMP/TIMESTAMP.json, the newest of them."""
    for path in sorted(folder.glob('*/*.json'), reverse=True):
        if TIMESTAMP.match(path.stem) and path.stem == path.parent.name:
            try:
                content = json.loads(path.read_text(encoding='utf-8'))
            except ValueError as error:
                raise ValueError(f'{path}: not readable as JSON ({error}).') from error
            items = content.items() if isinstance(content, dict) else ()
            return {key: float(value) for key, value in items if _is_figure(key, value)}
    return {}


def _is_figure(key: str, value) -> bool:
    return (
        isinstance(value, (int, float))
        and key not in NOT_METRICS
        and not key.endswith('_s')  # seconds that a probe took
    )


def _wall_time(folder: Path) -> float | None:
    """Seconds between the first and the last line of each start's text log."""
    total = 0.0
    for path in folder.glob('*/*.log'):
        if not TIMESTAMP.match(path.parent.name):
            continue
        times = LOGGED_TIME.findall(path.read_text(encoding='utf-8', errors='replace'))
        if times:
            first, last = (
                datetime.strptime(times[i], '%Y/%m/%d %H:%M:%S') for i in (0, -1)
            )
            total += (last - first).total_seconds()
    return total or None


def _iteration_time(log: TrainingLog) -> float | None:
    """Seconds of training alone, from the logged time of an iteration."""
    total, before = 0.0, 0
    for row in log.train:
        total += (row['step'] - before) * row.get('time', 0.0)
        before = row['step']
    return total or None


def _add_progress(run: Run, log: TrainingLog, config: dict) -> None:
    train = config.get('train_cfg') or {}
    unit = 'epochs' if 'max_epochs' in train else 'iterations'
    planned = train.get('max_epochs', train.get('max_iters'))
    if not log.train and not log.val:
        run.finished, run.progress = True, 'tested'
        return
    key = 'epoch' if unit == 'epochs' else 'step'
    reached = max((row.get(key, 0) for row in log.train), default=0)
    # A row of the last epoch does not say that the epoch has ended.
    ended = max(0, reached - 1) if unit == 'epochs' else reached
    ended = max([ended, *(row['step'] for row in log.val)])
    last = run.folder / 'last_checkpoint'
    saved = re.search(r'(\d+)\.pth', last.read_text()) if last.is_file() else None
    ended = max(ended, int(saved[1]) if saved else 0)
    if planned is None:
        run.progress = f'{ended} {unit}'
        return
    run.finished = ended >= planned
    run.progress = f'{min(ended, planned)} of {planned} {unit}'


def _kind(config: dict, metrics: dict[str, float]) -> str:
    model = config.get('model') or {}
    name = str(model.get('type', '')).split('.')[-1]
    if name in ('EncoderDecoder', 'CascadeEncoderDecoder') or 'mIoU' in metrics:
        return 'segmentation'
    if name == 'ImageClassifier' or (not name and 'accuracy/top1' in metrics):
        loader = config.get('train_dataloader') or config.get('test_dataloader') or {}
        if (loader.get('dataset') or {}).get('type') in TRANSFER_SETS:
            return 'transfer'
        if (model.get('backbone') or {}).get('frozen_stages', -1) > 0:
            return 'linear probe'
        return 'fine-tuning'
    return 'pre-training' if 'loss' in metrics else 'other'


def _settings(config: dict) -> dict[str, str | float]:
    optimizer = (config.get('optim_wrapper') or {}).get('optimizer') or {}
    found = {
        'lr': optimizer.get('lr'),
        'weight decay': optimizer.get('weight_decay'),
        'seed': (config.get('randomness') or {}).get('seed'),
    }
    return {key: value for key, value in found.items() if value is not None}


def _read_config(path: Path, problems: list[str]) -> dict:
    """Assignments of a config that mmengine dumped, without executing it.

    A dumped config has literals and ``dict(...)`` only; a config is code, and a
    report must not run what lies in a folder that somebody sent.
    """
    try:
        tree = ast.parse(path.read_text(encoding='utf-8'))
    except (OSError, ValueError, SyntaxError) as error:
        problems.append(f'{path}: not readable as a config ({error}).')
        return {}
    config = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                config[node.targets[0].id] = _literal(node.value)
            except ValueError:
                continue  # a config written by hand may compute what it likes
    return config


def _literal(node: ast.expr):
    if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'dict':
        if node.args or any(keyword.arg is None for keyword in node.keywords):
            raise ValueError('not a literal dict')
        return {keyword.arg: _literal(keyword.value) for keyword in node.keywords}
    if isinstance(node, ast.Dict):
        keys = [ast.literal_eval(key) if key else None for key in node.keys]
        return dict(zip(keys, map(_literal, node.values), strict=True))
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_literal(item) for item in node.elts]
    return ast.literal_eval(node)
