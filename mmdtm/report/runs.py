"""Find runs under work folders, and read what each has come to.

Nothing that lies there is executed: mmengine's logs, ``run.json`` files
(:mod:`mmdtm.run_record`) and result files (:mod:`mmdtm.report.results`) are read.
"""

import ast
import os
import re
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from mmdtm import run_record
from mmdtm.io import read_json
from mmdtm.report.results import read_results
from mmdtm.report.run import Run
from mmdtm.training_log import TrainingLog, read_training_log

TIMESTAMP = re.compile(r'\d{8}_\d{6}$')
LOGGED_TIME = re.compile(r'^(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) - ', re.MULTILINE)
# What a run of another program is, by the first of these values that it has.
KINDS_BY_METRIC = {
    'mIoU': 'segmentation',
    'accuracy/top1': 'fine-tuning',
    'loss': 'pre-training',
}
NOT_METRICS = {'step', 'iter', 'epoch', 'time', 'data_time', 'memory', 'lr', 'base_lr'}


def find_runs(roots: Iterable[str | Path]) -> tuple[list[Run], list[str]]:
    """Read every run below work folders, or folders of work folders.

    Returns:
        The runs in the order of their paths, and a message for each thing that
        could not be read; one bad file never hides the other runs.
    """
    runs: list[Run] = []
    problems: list[str] = []
    folders = [Path(root) for root in roots]
    for root in folders:
        if not root.is_dir():
            problems.append(f'{root}: no such folder.')
            continue
        found = len(runs), len(problems)
        for walked, subfolders, files in os.walk(root):
            starts = [name for name in subfolders if TIMESTAMP.match(name)]
            subfolders[:] = sorted(
                name
                for name in set(subfolders) - set(starts)
                if not name.startswith('.') and name != 'vis_data'
            )
            folder = Path(walked)
            name = folder.relative_to(root).as_posix()
            if name == '.':
                name = root.resolve().name
            elif len(folders) > 1:
                name = f'{root.resolve().name}/{name}'
            runs += _read_folder(folder, name, bool(starts), sorted(files), problems)
        if found == (len(runs), len(problems)):
            problems.append(
                f'{root}: no run in it. A run has mmengine logs '
                '(TIMESTAMP/vis_data/scalars.json) or a result.json.'
            )
    _tell_apart(runs, folders)
    return runs, problems


def _tell_apart(runs: list[Run], roots: list[Path]) -> None:
    """Name the folder, below its root, of runs that result files give one name."""
    names = Counter(run.name for run in runs)
    for run in runs:
        if names[run.name] > 1:
            (root, *_) = [r for r in roots if run.folder.is_relative_to(r)]
            run.name = f'{run.name} ({run.folder.relative_to(root).as_posix()})'


def read_run(folder: Path, name: str = '', problems: list[str] | None = None) -> Run:
    """Read one mmengine work folder.

    Args:
        folder: The work folder.
        name: What to call the run; the folder's name by default.
        problems: Gets a message for each thing that was left out.

    Raises:
        FileNotFoundError: If there is no log.
        ValueError: If the log has no readable row.
    """
    problems = [] if problems is None else problems
    run = Run(name or folder.resolve().name, '', folder)
    try:
        log = read_training_log(folder)
        place = folder
    except (FileNotFoundError, ValueError):
        log = TrainingLog(folder)
        place, run.metrics = _test_metrics(folder)
        if not run.metrics:
            raise
    if log.broken:
        more = f' and {len(log.broken) - 1} more' if len(log.broken) > 1 else ''
        problems.append(
            f'{log.broken[0]}{more}: no readable row (a log cut off in the middle?); '
            'the other rows are used.'
        )
    run.x_name = 'epoch' if log.iters_per_epoch or not log.train else 'iteration'
    _add_curves(run, log)
    run.tidy(problems)
    config = _add_record(run, place, problems)
    optimizer = (config.get('optim_wrapper') or {}).get('optimizer') or {}
    settings: dict[str, Any] = {
        'lr': optimizer.get('lr'),
        'weight decay': optimizer.get('weight_decay'),
        'seed': (config.get('randomness') or {}).get('seed'),
    }
    plain = {k: v for k, v in settings.items() if type(v) in (int, float, str)}
    run.settings = plain | run.settings
    run.seconds = _wall_time(folder) or _iteration_time(log)
    _add_progress(run, log, config.get('train_cfg') or {})
    return run


def _read_folder(
    folder: Path, name: str, has_starts: bool, files: list[str], problems: list[str]
) -> list[Run]:
    results, more = [], []
    for file in files:
        if file.endswith('.json') and file != run_record.FILE:
            found = read_results(folder / file, name, problems)
            if has_starts and file == 'result.json' and len(found) == 1:
                more = found
            else:
                results += found
    if not has_starts:
        return results
    try:
        run = read_run(folder, name, problems)
    except (OSError, ValueError) as error:
        problems.append(str(error))
        return more + results
    except Exception as error:  # of a log's values anything can come
        problems.append(f'{folder}: not the log of a run ({error!r}); left out.')
        return more + results
    for result in more:  # one result.json beside logs is about the same run
        run.kind, run.name = result.kind, result.name
        run.chain = run.chain or result.chain
        run.metrics |= result.metrics
        run.settings |= result.settings
        run.curves |= result.curves
        run.pictures = result.pictures
        run.seconds = run.seconds if result.seconds is None else result.seconds
    return [run, *results]


def _add_record(run: Run, place: Path, problems: list[str]) -> dict:
    """Take what made the run from its record; returns the whole config."""
    try:
        run.record = run_record.read_record(place)
    except ValueError as error:
        problems.append(str(error))
    if run.record is None:
        kinds = (k for name, k in KINDS_BY_METRIC.items() if name in run.metrics)
        run.kind = next(kinds, 'other')
        return _dumped_config(run.folder, problems)
    run.kind, run.smoke = run.record['kind'], bool(run.record.get('smoke'))
    run.chain = run_record.chain(run.record)
    run.changes = run_record.changes(run.record)
    run.settings = {k.split('.')[-1]: str(v) for k, v in run.changes.items()}
    return run.record['full_config']


def _add_curves(run: Run, log: TrainingLog) -> None:
    for row in log.val:
        for key, value in row.items():
            if _is_metric(key, value):
                key = key.removeprefix('probe/')  # FeatureProbeHook's
                run.metrics[key] = float(value)
                point = float(row['step']), float(value)
                run.curves.setdefault(key, []).append(point)
    losses = [row for row in log.train if isinstance(row.get('loss'), (int, float))]
    if losses:
        run.metrics['loss'] = float(losses[-1]['loss'])
        xs, ys = log.series('train', 'loss')
        run.curves['loss'] = list(zip(xs, ys, strict=True))


def _test_metrics(folder: Path) -> tuple[Path, dict[str, float]]:
    """What tools/test.py left, TIMESTAMP/TIMESTAMP.json: the newest, and its place."""
    for path in sorted(folder.glob('*/*.json'), reverse=True):
        if TIMESTAMP.match(path.stem) and path.stem == path.parent.name:
            try:
                content = read_json(path)
            except ValueError as error:
                raise ValueError(
                    f'{path} is not readable as JSON ({error}). Remove or restore it.'
                ) from error
            items = content.items() if isinstance(content, dict) else ()
            return path.parent, {k: float(v) for k, v in items if _is_metric(k, v)}
    return folder, {}


def _is_metric(key: str, value) -> bool:
    return (
        isinstance(value, (int, float))
        and key not in NOT_METRICS
        and not key.endswith('_s')  # seconds that a probe took
    )


def _wall_time(folder: Path) -> float | None:
    """Seconds between the first and the last line of each start's text log."""
    total = 0.0
    for path in folder.glob('*/*.log'):
        if not (TIMESTAMP.match(path.parent.name) and path.is_file()):
            continue
        text = path.read_text(encoding='utf-8', errors='replace')
        if times := LOGGED_TIME.findall(text):
            ends = times[0], times[-1]
            first, last = (datetime.strptime(t, '%Y/%m/%d %H:%M:%S') for t in ends)
            total += (last - first).total_seconds()
    return total or None


def _iteration_time(log: TrainingLog) -> float | None:
    """Seconds of training alone, from the logged time of an iteration."""
    total, before = 0.0, 0
    for row in log.train:
        total += (row['step'] - before) * row.get('time', 0.0)
        before = row['step']
    return total or None


def _add_progress(run: Run, log: TrainingLog, loop: dict) -> None:
    unit = 'epochs' if 'max_epochs' in loop else 'iterations'
    planned = loop.get('max_epochs', loop.get('max_iters'))
    if not log.train and not log.val:
        run.finished, run.progress = True, 'tested'
        return
    key = 'epoch' if unit == 'epochs' else 'step'
    reached = max((row.get(key, 0) for row in log.train), default=0)
    # A row of the last epoch does not say that the epoch has ended.
    ended = max(0, reached - 1) if unit == 'epochs' else reached
    ended = max([ended, *(row['step'] for row in log.val)])
    last = run.folder / 'last_checkpoint'
    text = last.read_text(errors='replace')[-99:] if last.is_file() else ''
    saved = re.search(r'(\d{1,15})\.pth', text)
    ended = max(ended, int(saved[1]) if saved else 0)
    if planned is None:
        run.progress = f'{ended} {unit}'
        return
    run.finished = ended >= planned
    run.progress = f'{min(ended, planned)} of {planned} {unit}'


def _dumped_config(folder: Path, problems: list[str]) -> dict:
    """Assignments of the config that mmengine dumped, without executing it.

    A dumped config has literals and ``dict(...)`` only; a config is code, and a
    report must not run what lies in a folder that somebody sent.
    """
    files = (file for file in folder.glob('*.py') if file.is_file())
    path = max(files, key=os.path.getmtime, default=None)
    if path is None:
        return {}
    try:
        tree = ast.parse(path.read_text(encoding='utf-8'))
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError) as error:
        problems.append(f'{path}: not readable as a config ({error}).')
        return {}
    config = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                config[node.targets[0].id] = _literal(node.value)
            except (ValueError, RecursionError):
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
