"""The paper's tables, and which runs they are compared with."""

import json
from pathlib import Path

import pytest
from fake_runs import accuracy_rows, epoch_rows, lineage, write_logs, write_record

from mmdtm.report import build_report
from mmdtm.report.paper import find_cells, paper_tables

FINETUNE = 'finetune/dtm_vit-b_100e_in1k'
BIRDS = 'transfer/dtm_vit-b_100e_nabirds'
LR = 'optim_wrapper.optimizer.lr'
# Where the paper's own gain is not the difference of its own values.
MISPRINTS = {('1', 'Linear probing, 25 epochs (%)')}


def test_all_tables_are_whole():
    tables = paper_tables()
    assert list(tables) == [str(number) for number in range(1, 12)]
    for table in tables.values():
        assert table.title and table.where and table.rows
        assert all(len(row) == len(table.columns) for row in table.rows.values())


def test_gains_are_those_over_the_baseline():
    wrong = set()
    for table in paper_tables().values():
        rows = list(table.rows.values())
        for i, row in enumerate(rows):
            # Table 3 has a baseline for each framework.
            baseline = rows[i - 1 if table.number == '3' else 0]
            for cell, base in zip(row, baseline, strict=True):
                gain = None if cell.gain is None else cell.value - base.value
                if gain is not None and gain != pytest.approx(cell.gain):
                    wrong.add((cell.table, cell.column))
    assert wrong == MISPRINTS
    for number in ('1', '3', '4', '5'):  # v1's misprints are noted
        assert paper_tables()[number].notes


def test_speeds_are_shares_of_the_baselines():
    rows = paper_tables()['11'].rows
    base = rows['baseline'][0].value
    for images_per_second, share, _ in rows.values():
        assert share.value == pytest.approx(images_per_second.value / base, abs=5e-4)


@pytest.mark.parametrize(
    ('pretraining', 'printed'),
    [
        ('baseline/token-wise_vit-b_300e', {84.3}),
        ('ablation/fixed-98_vit-b_300e', {84.0}),
        ('dtm_vit-b_300e', {85.4}),
        ('ablation/l1_vit-b_100e', {83.2}),
        ('/somewhere/dtm_vit-b_300e', set()),  # somebody's own
    ],
)
def test_a_fine_tuning_is_credited_by_its_pre_training(pretraining, printed):
    cells = find_cells((pretraining, FINETUNE), {'accuracy/top1'})
    assert {cell.value for cell in cells} == printed
    assert find_cells((FINETUNE,), {'accuracy/top1'}) == []
    changed = find_cells((pretraining, FINETUNE), {'accuracy/top1'}, {LR: 1.0})
    assert changed == []


def report_of(tmp_path: Path):
    return build_report([tmp_path / 'work_dirs'], tmp_path / 'out')


def write_run(folder: Path, top1: float, *configs: str, **record) -> None:
    write_record(folder, 'fine-tuning', *configs, **record)
    write_logs(folder, epoch_rows([1.0, 0.5], 1), accuracy_rows([1.0, top1]))


def cell_of(table: str, row: str, column: int = 0):
    return paper_tables()[table].rows[row][column]


def test_folders_and_names_do_not_matter(tmp_path):
    root = tmp_path / 'work_dirs'
    write_run(root / 'dtm_vit-b_300e', 84.1, 'baseline/token-wise_vit-b_300e', FINETUNE)
    write_run(root / 'token-wise', 85.2, 'dtm_vit-b_300e', FINETUNE)
    report = report_of(tmp_path)
    ours = {row: report.ours(cell_of('8', row)) for row in ('baseline', 'DTM')}
    assert ours == {'baseline': '84.10', 'DTM': '85.20'}
    shown = {run['name']: run for run in json.loads(report.json.read_text())['runs']}
    assert shown['dtm_vit-b_300e']['paper'] == 84.3
    assert shown['token-wise']['paper'] == 85.4
    assert '| here | 85.20 |' in report.markdown.read_text()


def test_several_runs_make_a_mean_and_a_test_does_not_count_twice(tmp_path):
    chain = ('dtm_vit-b_300e', FINETUNE)
    root = tmp_path / 'work_dirs'
    write_run(root / 'a', 85.0, *chain, id='a')
    write_run(root / 'b', 86.0, *chain, id='b')
    write_run(root / 'half', 99.0, *chain, id='c', loop=dict(max_epochs=100))
    tested = dict(lineage(*chain), id='a')
    start = root / 'test/20260101_120000'
    write_record(start, 'fine-tuning', FINETUNE, test=True, id='t', parent=tested)
    (start / f'{start.name}.json').write_text('{"accuracy/top1": 85.0}')
    report = report_of(tmp_path)
    assert report.ours(cell_of('8', 'DTM')) == '85.50 (± 0.50, 2 runs)'
    (test,) = [run for run in report.runs if run.name == 'test']
    assert test.chain == chain and test.metrics == {'accuracy/top1': 85.0}


def test_a_grid_reports_its_best_as_tables_6_and_7_do(tmp_path):
    for lr, top1 in ((1e-4, 86.0), (3e-4, 88.0)):
        folder = tmp_path / f'work_dirs/{lr}'
        write_run(folder, top1, 'dtm_vit-b_300e', BIRDS, changes={LR: lr})
    report = report_of(tmp_path)
    birds = cell_of('6', 'DTM')
    assert str(birds) == '88.8 (88.2 ± 0.4)'
    assert report.ours(birds) == '88.00 (87.00 ± 1.00, 2 runs)'


def test_a_smoke_run_is_no_result(tmp_path):
    chain = ('dtm_vit-b_300e', FINETUNE)
    write_run(tmp_path / 'work_dirs/a', 12.0, *chain, id='a', smoke=True)
    report = report_of(tmp_path)
    assert report.ours(cell_of('8', 'DTM')) == '12.00 (smoke)'
    _, _, _, paper, difference, _, status = report.summary(report.runs[0])[:7]
    assert (paper, difference, status) == ('85.4', '—', 'smoke run, finished')
    write_run(tmp_path / 'work_dirs/b', 85.0, *chain, id='b')
    assert report_of(tmp_path).ours(cell_of('8', 'DTM')) == '85.00'
