"""No part of a run's files, whatever it is, keeps the other runs from the report."""

import copy
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_runs import write_logs, write_record

from mmdtm.report import build_report

JUNK = (
    None, [], {}, [[]], {'a': [{}]}, 'x', True, 0, -1, 10**400, 1e400, float('nan'),
    '</script><script>alert(1)</script>',
)  # fmt: skip
TEXTS = (
    '', '\0', '{"step": 1', '[' * 100_000, '{"step": 1, "a": ' * 50_000, '9' * 5000,
    'a = ' + '(' * 3000, 'a = ' + '-' * 100_000 + '1',
)  # fmt: skip
SCALARS = '20260101_120000/vis_data/scalars.json'
ROWS = [
    dict(lr=0.1, loss=1.0, epoch=1, iter=2, step=2, time=0.1),
    {'accuracy/top1': 10.0, 'time': 0.1, 'step': 1},
]
RESULT = dict(
    kind='linear probe',
    name='n',
    metrics={'linear_top1': 1.0},
    seconds=1.0,
    config='configs/a.py',
    settings={'a': 1},
    curves={'loss': [[1, 2]]},
    pictures=[dict(file='a.png', caption='c')],
)


def places(node, path: tuple = ()) -> Iterator[tuple]:
    """The ways to all parts of what JSON holds."""
    yield path
    items = node.items() if isinstance(node, dict) else ()
    for key, child in enumerate(node) if isinstance(node, list) else items:
        yield from places(child, (*path, key))


def replaced(node, path: tuple, value):
    """A copy with another part at a place."""
    if not path:
        return value
    node = copy.deepcopy(node)
    parent = node
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    return node


def damages(folder: Path) -> Iterator[tuple[str, str]]:
    """A file of a run, and what is to stand in it."""
    for file in ('run.json', 'result.json'):
        whole = json.loads((folder / file).read_text())
        for path, junk in itertools.product(places(whole), JUNK):
            yield file, json.dumps(replaced(whole, path, junk))
    for path, junk in itertools.product(places(ROWS), JUNK):
        rows = replaced(ROWS, path, junk)
        rows = rows if isinstance(rows, list) else [rows]
        yield SCALARS, ''.join(json.dumps(row) + '\n' for row in rows)
    names = ('run.json', 'result.json', SCALARS, 'last_checkpoint', 'config.py')
    yield from itertools.product(names, TEXTS)


@pytest.fixture
def run(tmp_path):
    """A run whose files there are of all kinds, beside one that is well."""
    folder = tmp_path / 'runs/<img src=x onerror=alert(1)>'
    write_record(
        folder, 'fine-tuning', 'dtm_vit-b_300e', 'finetune/dtm_vit-b_100e_in1k'
    )
    write_logs(folder, ROWS[:1], ROWS[1:])
    (folder / 'result.json').write_text(json.dumps(RESULT))
    (tmp_path / 'runs/good').mkdir()
    (tmp_path / 'runs/good/result.json').write_text(json.dumps(RESULT))
    return folder


def check(run: Path) -> None:
    report = build_report([run.parent], run.parents[1] / 'out')
    assert 'good' in [found.folder.name for found in report.runs]
    page = report.html.read_text()
    assert '<script>alert' not in page and '<img src=x' not in page


@pytest.mark.parametrize('every', [29, pytest.param(4, marks=pytest.mark.slow)])
def test_the_other_run_is_shown(run, every):
    check(run)
    tried = 0
    for file, text in itertools.islice(damages(run), 0, None, every):
        path = run / file
        before = path.read_bytes() if path.exists() else None
        path.write_text(text)
        check(run)
        tried += 1
        path.unlink() if before is None else path.write_bytes(before)
    assert tried > 1000 / every


@pytest.mark.parametrize(
    'file', ['run.json', 'bench.json', SCALARS, '20260101_120000/20260101_120000.log']
)
def test_pipes_are_not_waited_for(run, file):
    (run / file).unlink(missing_ok=True)
    os.mkfifo(run / file)
    check(run)
