"""Result files: how other tools hand rows to the report (docs/report.md)."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

from mmdtm.io import read_json, write_text
from mmdtm.report.run import Run

OPTIONAL = {'config', 'settings', 'curves', 'x_name', 'pictures', 'finished'}


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
        metrics: Values by name; ``accuracy/top1``, ``mIoU``, ``knn_top1``,
            ``linear_top1``, ``images_per_second`` and ``loss`` come first.
        seconds: What it took.
        **more: The optional fields of docs/report.md, ``OPTIONAL``.

    Returns:
        The path of the file, written atomically.

    Raises:
        TypeError: If ``more`` has others.
    """
    if unknown := more.keys() - OPTIONAL:
        raise TypeError(
            f'write_result got {", ".join(sorted(unknown))}, which no report shows. '
            f'Give metrics, or {", ".join(sorted(OPTIONAL))}.'
        )
    path = Path(folder) / 'result.json'
    content = dict(kind=kind, name=name, metrics=dict(metrics), seconds=seconds, **more)
    write_text(path, json.dumps(content, indent=2) + '\n')
    return path


def read_results(path: Path, name: str, problems: list[str]) -> list[Run]:
    """Rows of a JSON file, of ``metrics`` or of a benchmark's ``rows``.

    A file that is readable JSON of another kind is not a result and not a problem.
    ``problems`` gets a message for each thing that was left out.
    """
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        problems.append(f'{path}: not readable as JSON ({error}); left out.')
        return []
    results = []
    for item in content if isinstance(content, list) else [content]:
        if not isinstance(item, dict) or 'kind' not in item:
            continue
        rows = [item] if 'metrics' in item else item.get('rows', [])
        try:
            runs = [_result(row, str(item['kind']), path.parent, name) for row in rows]
            for run, row in zip(runs, rows, strict=True):
                run.smoke = bool(item.get('smoke'))
                run.pictures = _pictures(row, path, problems)
                run.tidy(problems)
            results += runs
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            problems.append(
                f'{path}: not a result as docs/report.md describes it ({error!r}); '
                'left out.'
            )
    return results


def _result(row: dict, kind: str, folder: Path, name: str) -> Run:
    # The rows of tools/benchmark have the values in the row itself.
    metrics = row.get('metrics', {k: v for k, v in row.items() if _is_number(v)})
    config = str(row.get('config', '')).split('configs/')[-1].removesuffix('.py')
    return Run(
        str(row.get('name', name)),
        kind,
        folder,
        {str(key): float(value) for key, value in metrics.items()},
        finished=bool(row.get('finished', True)),
        seconds=None if row.get('seconds') is None else _seconds(row['seconds']),
        chain=(config,) if config else (),
        settings={
            str(key): value if _is_number(value) else str(value)
            for key, value in row.get('settings', {}).items()
        },
        curves={
            str(key): [(float(x), float(y)) for x, y in points]
            for key, points in row.get('curves', {}).items()
        },
        x_name=str(row.get('x_name', 'epoch')),
    )


def _pictures(row: dict, path: Path, problems: list[str]) -> list[tuple[Path, str]]:
    """Those that lie below the result's folder."""
    found = []
    for picture in row.get('pictures', []):
        file = (path.parent / picture['file']).resolve()
        if file.is_relative_to(path.parent.resolve()) and file.is_file():
            found.append((file, str(picture.get('caption', file.name))))
        else:
            problems.append(
                f'{path}: picture {picture["file"]} is not a file below '
                f'{path.parent}; left out.'
            )
    return found


def _seconds(value) -> float:
    seconds = float(value)
    if not 0 <= seconds < math.inf:
        raise ValueError(f'seconds is {value}')
    return seconds


def _is_number(value) -> bool:
    return isinstance(value, (int, float))
