"""The report of known folders, and its page in a browser."""

import html.parser
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fake_runs import (
    accuracy_rows,
    epoch_rows,
    iteration_rows,
    write_logs,
    write_record,
)
from PIL import Image

from mmdtm.report import build_report, find_runs, read_run, write_result
from mmdtm.report.run import MAX_POINTS

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = '<img src=x onerror=alert(1)></script><script>alert("&")</script>|`*'
BASE = 'dtm_vit-b_300e'


@pytest.fixture
def known(tmp_path) -> Path:
    """Seven runs and two things that are none."""
    root = tmp_path / 'work_dirs'
    pretrain, finetune, cub = (root / f'dtm/{n}' for n in ('pre', 'finetune', 'cub'))
    write_record(pretrain, 'pre-training', BASE, lr=0.00015)
    write_logs(pretrain, epoch_rows([1.0, 0.75, 0.5, 0.25], per_epoch=2), [])
    (pretrain / 'last_checkpoint').write_text('/somewhere/epoch_2.pth')
    write_record(finetune, 'fine-tuning', BASE, 'finetune/dtm_vit-b_100e_in1k')
    rows = epoch_rows([6.9, 5.5, 4.5, 4.25], per_epoch=2)
    write_logs(finetune, rows, accuracy_rows([40.0, 84.9]), ends='2026/01/01 12:40:00')
    rates = {'optim_wrapper.optimizer.lr': 1e-3}
    write_record(
        cub, 'fine-tuning', BASE, 'transfer/dtm_vit-b_100e_cub200', changes=rates
    )
    write_logs(
        cub,
        epoch_rows([5.0, 4.0], per_epoch=2),
        accuracy_rows([70.0]),
        ends='2026/01/01 12:00:07',
    )
    write_logs(  # of another program: no record
        root / 'dtm/ade20k',
        iteration_rows([3.0] * 19 + [2.0]),
        [{'mIoU': v, 'step': s} for v, s in ((30.0, 10), (41.25, 20))],
        ends='2026/01/01 12:35:00',
    )
    (root / 'dtm/ade20k/upernet.py').write_text(
        "train_cfg = dict(max_iters=20, type='IterBasedTrainLoop')\n"
        f"open({str(tmp_path / 'executed')!r}, 'w')\n"
    )
    scores = {'linear_top1': 61.5}
    write_result(root / 'probe', 'linear probe', 'DTM features', scores, seconds=40)
    rows = [
        dict(name='DTM', config=f'configs/{BASE}.py', relative_throughput=0.98),
        dict(name='other', images_per_second=20.0),
    ]
    speed = dict(kind='throughput', device='cpu', batch=8, rows=rows)
    (root / 'speed.json').write_text(json.dumps(speed))
    (root / 'annotations.json').write_text('{"images": []}')
    return root


def test_a_known_folder_gives_a_known_table(known, tmp_path):
    report = build_report([known], tmp_path / 'out')
    assert report.problems == []
    table = report.markdown.read_text().split('\n\n')[1].splitlines()
    expected = """
| dtm/pre | pre-training | loss 0.2500 | — | — | 1 h 30 min | finished | — \
| lr 0.00015, weight decay 0.05, seed 0 |
| DTM features | linear probe | linear top-1 (%) 61.50 | — | — | 40 s | finished | — \
| — |
| dtm/cub | fine-tuning | top-1 (%) 70.00 | 88.8 | -18.80 | 7 s \
| unfinished: 1 of 2 epochs | loss 4.00, top-5 (%) 80.00 \
| lr 0.001, weight decay 0.05, seed 0 |
| dtm/finetune | fine-tuning | top-1 (%) 84.90 | 85.4 | -0.50 | 40 min | finished \
| loss 4.25, top-5 (%) 94.90 | lr 0.0005, weight decay 0.05, seed 0 |
| dtm/ade20k | segmentation | mIoU (%) 41.25 | — | — | 35 min | finished \
| loss 2.00 | — |
| DTM | throughput | relative speed 0.9800 | 0.990 | -0.01 | — | finished | — | — |
| other | throughput | images/s 20.00 | — | — | — | finished | — | — |
"""
    assert table[2:] == expected.strip().splitlines()
    assert not (tmp_path / 'executed').exists()  # a config is read, not run


def test_a_result_has_no_fields_that_no_report_shows(tmp_path):
    with pytest.raises(TypeError, match='got setings, .*Give metrics, or .*settings'):
        write_result(tmp_path, 'probe', 'DTM', {}, setings=dict(lr=1))
    assert not list(tmp_path.iterdir())


def test_json_says_the_same(known, tmp_path):
    report = build_report([known], tmp_path)
    content = json.loads(report.json.read_text())
    runs = {run['name']: run for run in content['runs']}
    finetune = runs['dtm/finetune']
    assert finetune['metrics'] == {
        'accuracy/top1': 84.9,
        'accuracy/top5': 94.9,
        'loss': 4.25,
    }
    assert (finetune['paper'], finetune['finished']) == (85.4, True)
    assert finetune['chain'] == [BASE, 'finetune/dtm_vit-b_100e_in1k']
    assert finetune['curves']['accuracy/top1'] == [[1, 40], [2, 84.9]]
    # Losses stand at the epochs: two iterations each.
    assert finetune['curves']['loss'] == [[0.5, 6.9], [1, 5.5], [1.5, 4.5], [2, 4.25]]
    segment = runs['dtm/ade20k']
    assert segment['x_name'] == 'iteration'
    assert segment['curves']['mIoU'] == [[10, 30], [20, 41.25]]
    assert runs['dtm/cub']['finished'] is False


def test_what_made_a_run_is_shown(known, tmp_path):
    report = build_report([known], tmp_path)
    page = report.html.read_text()
    shown = [
        f'{BASE} → finetune/dtm_vit-b_100e_in1k',
        'mmdtm 9.9 c0ffee0000, changed since',
        'torch 2.0, mmengine 0.10',
        'here: V100 x 2',
        'abababababab',
    ]
    made = report.markdown.read_text().split('## What made the runs')[1]
    assert len(made.strip().splitlines()) == 2 + 3  # those with a record
    for text in shown:
        assert text in page and text.replace('_', '\\_') in made


def test_what_cannot_be_read_is_named_and_the_rest_goes_on(known, tmp_path):
    scalars = known / 'dtm/finetune/20260101_120000/vis_data/scalars.json'
    text = scalars.read_text()
    scalars.write_text(text[: len(text) - 30])  # killed while writing
    (known / 'half.json').write_text('{"kind": "probe", "metr')
    (known / 'odd.json').write_text('{"kind": "probe", "metrics": [1]}')
    (known / 'dtm/cub/run.json').write_text('{"id": "x", "parent": 3}')
    (known / 'silent/20260101_120000').mkdir(parents=True)
    empty = tmp_path / 'empty'
    empty.mkdir()
    report = build_report([known, empty, tmp_path / 'none'], tmp_path / 'out')
    assert len(report.runs) == 7
    finetune = next(run for run in report.runs if 'finetune' in run.name)
    assert finetune.metrics['accuracy/top1'] == 40.0
    assert not finetune.finished
    problems = '\n'.join(report.problems)
    assert len(report.problems) == 7
    assert re.search(r'scalars.json:6: no readable row', problems)
    assert re.search(r'half.json: not readable as JSON', problems)
    assert re.search(r'odd.json: not a result', problems)
    assert re.search(r'cub/run.json is not a record', problems)
    assert re.search(r'silent: no mmengine log', problems)
    assert f'{empty}: no run in it' in problems
    assert f'{tmp_path / "none"}: no such folder' in problems


def test_nothing_to_report_is_an_error(tmp_path):
    with pytest.raises(ValueError, match='Nothing to report.\n.*no run in it'):
        build_report([tmp_path], tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_resumed_run_is_one_run(tmp_path):
    first = epoch_rows([4.0, 3.0, 2.5, 9.0], per_epoch=2)
    write_logs(tmp_path, first, accuracy_rows([10.0]))
    second = epoch_rows([0, 0, 2.0, 1.0], per_epoch=2)[2:]
    val = accuracy_rows([10.0, 20.0])[1:]
    write_logs(tmp_path, second, val, start='20260102_120000')
    write_record(tmp_path, 'fine-tuning', 'c')
    found = read_run(tmp_path)
    assert found.curves['loss'] == [(0.5, 4), (1, 3), (1.5, 2), (2, 1)]
    assert found.curves['accuracy/top1'] == [(1, 10), (2, 20)]
    assert found.finished
    assert found.seconds == 2 * 90 * 60


def test_values_that_are_not_finite_are_left_out_and_named(tmp_path):
    write_logs(tmp_path / 'run', epoch_rows([1.0, math.nan], 2), accuracy_rows([5.0]))
    report = build_report([tmp_path / 'run'], tmp_path)
    assert report.runs[0].metrics == {'accuracy/top1': 5.0, 'accuracy/top5': 15.0}
    assert report.runs[0].curves['loss'] == [(0.5, 1.0)]
    assert any('the last loss is nan' in problem for problem in report.problems)
    json.loads(report.json.read_text(), parse_constant=pytest.fail)


def test_result_beside_logs_adds_to_the_run(tmp_path):
    run = tmp_path / 'run'
    write_logs(run, epoch_rows([1.0], 1), accuracy_rows([5.0, 6.0]))
    write_result(run, 'fine-tuning', 'mine', {'knn_top1': 44.0}, settings={'data': 'A'})
    # What another tool wrote there is a row of its own.
    probe = dict(kind='linear probe', name='p', metrics={'linear_top1': 1.0})
    (run / 'probe.json').write_text(json.dumps(probe | dict(config='configs/a/b.py')))
    runs, problems = find_runs([tmp_path])
    assert problems == []
    found, probed = runs
    assert (probed.name, probed.config) == ('p', 'a/b')
    assert found.name == 'mine'
    assert found.metrics['knn_top1'] == 44.0 and found.metrics['accuracy/top1'] == 6.0
    assert found.settings == {'data': 'A'}


def test_results_of_one_name_are_told_apart_by_their_folders(tmp_path):
    """As grid searches of one config from two checkpoints."""
    for row in ('baseline', 'dtm'):
        write_result(tmp_path / row, 'grid search', 'cub200', {'accuracy/top1': 1.0})
    write_result(tmp_path / 'other', 'grid search', 'dogs', {'accuracy/top1': 1.0})
    runs, _ = find_runs([tmp_path])
    assert [run.name for run in runs] == [
        'cub200 (baseline)',
        'cub200 (dtm)',
        'dogs',
    ]


def test_metrics_may_have_any_name(tmp_path):
    names = ['Kind', 'Run', '', '__proto__', 'Paper']
    write_result(tmp_path, 'k', 'n', {name: i for i, name in enumerate(names)})
    report = build_report([tmp_path], tmp_path)
    row = report.markdown.read_text().splitlines()[4]
    assert row.startswith('| n | k | Kind 0.0000 | — | — | — | finished | Run 1.00, ')


def test_long_curves_are_thinned_and_keep_their_ends(tmp_path):
    points = [[i, i / 7] for i in range(10 * MAX_POINTS)]
    write_result(tmp_path, 'a', 'b', {'m': 1.0}, curves={'m': points})
    (run,), _ = find_runs([tmp_path])
    assert len(run.curves['m']) == MAX_POINTS
    assert run.curves['m'][0] == (0, 0) and run.curves['m'][-1] == tuple(points[-1])
    assert run.curves['m'] == sorted(set(run.curves['m']))


class Page(html.parser.HTMLParser):
    """Elements, attributes and text of a page as a browser would split it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.attributes, self.texts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_data(self, data):
        self.texts.append(data)


def test_everything_from_a_run_is_escaped(tmp_path):
    points = [[1, 2], [2, 3]]
    Image.new('RGB', (4, 4)).save(tmp_path / 'p.png')
    plain = write_result(tmp_path, 'k', 'n', {'m': 1.0}, curves={'m': points})
    tags = Page(build_report([tmp_path], tmp_path / 'o').to_html()).tags
    plain.write_text(
        json.dumps(
            dict(
                kind=HOSTILE,
                name=HOSTILE,
                metrics={HOSTILE: 1.0},
                settings={HOSTILE: HOSTILE},
                curves={HOSTILE: points},
                pictures=[dict(file='p.png', caption=HOSTILE)],
                x_name=HOSTILE,
            )
        )
    )
    (tmp_path / '<b>.json').write_text('{"kind": ')
    report = build_report([tmp_path], tmp_path / 'o')
    page = Page(report.html.read_text())
    # Not one element more than with harmless names, but the picture and the message.
    assert sorted(page.tags) == sorted([*tags, 'figure', 'img', 'figcaption', 'li'])
    assert ('onerror', 'alert(1)') not in page.attributes
    assert HOSTILE in page.texts
    assert any('<b>.json' in text for text in page.texts)
    row = report.markdown.read_text().splitlines()[4]
    assert '<' not in row and len(re.findall(r'(?<!\\)\|', row)) == 10


def test_pictures_stay_within_the_run(tmp_path):
    Image.new('RGB', (4, 4)).save(tmp_path / 'outside.png')
    run = tmp_path / 'run'
    run.mkdir()
    (run / 'link.png').symlink_to(tmp_path / 'outside.png')
    pictures = [dict(file='../outside.png'), dict(file='link.png'), dict(file='no.png')]
    write_result(run, 'k', 'n', {'m': 1.0}, pictures=pictures)
    report = build_report([run], tmp_path / 'o')
    assert report.runs[0].pictures == []
    assert len(report.problems) == 3
    assert 'data:image' not in report.html.read_text()


def test_page_names_no_other_resource(known, tmp_path):
    text = build_report([known], tmp_path).html.read_text()
    urls = set(re.findall(r'https?://[^\s"\'<]+', text))
    assert urls == {'http://www.w3.org/2000/svg'}  # a name, not an address
    assert "default-src 'none'" in text


def test_the_tool_writes_the_report_or_says_why_not(known, tmp_path):
    command = [sys.executable, 'tools/report.py', known, '--out', tmp_path / 'o']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert 'dtm/cub' in done.stdout and str(tmp_path / 'o/report.html') in done.stdout
    command[2] = tmp_path / 'nowhere'
    failed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert failed.returncode == 1
    assert 'no such folder' in failed.stderr and 'Traceback' not in failed.stderr


def test_the_page_works_in_a_browser(known, tmp_path, browser):
    write_result(known / 'x', HOSTILE, HOSTILE, {'m': 1.0}, curves={HOSTILE: [[0, 1]]})
    report = build_report([known], tmp_path / 'out')
    browser.send('/url', url='about:blank')
    browser.requests()  # of the browser's own first page
    browser.send('/url', url=report.html.resolve().as_uri())

    # Every kind's curves show as lines with a length.
    drawn = browser.run("""return [...document.querySelectorAll('.chart')].map(c => [
        c.querySelector('h3').textContent, c.querySelectorAll('path.run').length,
        [...c.querySelectorAll('path.run')].some(p => p.getTotalLength() > 50)])""")
    assert ['loss pre-training', 1, True] in drawn
    assert ['top-1 (%) fine-tuning', 2, True] in drawn
    assert ['mIoU (%) segmentation', 1, True] in drawn
    assert browser.run("return document.querySelector('.paper') !== null")

    names = """return [...document.querySelectorAll('#runs tbody tr')]
        .filter(r => !r.hidden).map(r => r.cells[0].textContent)"""
    press = """[...document.querySelectorAll('#runs thead button, .chip')]
        .find(b => b.textContent === {!r}).click();"""
    browser.run(press.format('Value'))
    assert browser.run(names)[:3] == ['dtm/finetune', 'dtm/cub', 'DTM features']
    browser.run(press.format('Value'))
    assert browser.run(names)[-2:] == ['dtm/cub', 'dtm/finetune']
    browser.run(press.format('Paper'))  # what has none comes last, both ways
    assert browser.run(names)[:3] == ['dtm/cub', 'dtm/finetune', 'DTM']
    browser.run(press.format('Paper'))
    assert browser.run(names)[:3] == ['DTM', 'dtm/finetune', 'dtm/cub']
    browser.run(press.format('Run'))
    assert browser.run(names)[1:4] == ['DTM', 'DTM features', 'dtm/ade20k']
    assert browser.run("return document.querySelectorAll('[aria-sort]').length") == 1

    browser.run(press.format('throughput'))
    assert browser.run(names) == ['DTM', 'other']
    heads = """return [...document.querySelectorAll('#runs thead th')]
        .filter(h => !h.hidden).map(h => h.textContent)"""
    assert browser.run(heads) == [
        'Run', 'Kind', 'Value', 'Paper', 'Difference', 'Status',
    ]  # fmt: skip
    assert browser.run("return [...document.querySelectorAll('.chart')]"
                       '.every(c => c.hidden)')  # fmt: skip
    browser.run(press.format('throughput'))
    browser.run("""const s = document.getElementById('search');
        s.value = 'CUB fine'; s.dispatchEvent(new Event('input'))""")
    assert browser.run(names) == ['dtm/cub']

    tables = "return document.querySelectorAll('#tables section table').length"
    assert browser.run(tables) == 11
    assert browser.run('return document.querySelectorAll("img").length') == 0
    assert browser.requests() == [report.html.resolve().as_uri()]
    assert browser.log('browser') == []  # no error, no violated policy
