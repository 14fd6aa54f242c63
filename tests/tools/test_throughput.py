"""The throughput of table 11's rows, side by side."""

import json
from pathlib import Path

import pytest
from tiny_run import ROOT, run_tool

from mmdtm.report import find_runs

ROWS = [
    'ablation/kmeans',
    'ablation/layer-wise-kmeans',
    'dtm',
    'baseline/token-wise',
]


@pytest.mark.slow
def test_all_rows_of_table_11_in_one_run(tmp_path, capsys):
    configs = [f'{ROOT}/configs/{row}_vit-b_300e.py' for row in ROWS]
    out = tmp_path / 'results.json'
    options = '--smoke --device cpu --batch-size 3 --steps 2 --warmup 1'
    run_tool('benchmark/throughput.py', *configs, *options.split(), '--out', out)
    results = json.loads(out.read_text())
    assert (results['kind'], results['batch']) == ('throughput', 3)
    assert [row['name'] for row in results['rows']] == [
        Path(f'{row}_vit-b_300e').name for row in ROWS
    ]
    for row in results['rows']:
        assert abs(row['images_per_second'] * row['seconds_per_step'] - 3) < 1e-6
    assert results['rows'][-1]['relative_throughput'] == 1
    assert 'median of 2 steps' in capsys.readouterr().out
    # Beside the baseline each row is compared with the paper's share of its speed.
    runs, problems = find_runs([tmp_path])
    assert problems == [] and all(run.smoke for run in runs)
    printed = [[cell.printed for cell in run.cells] for run in runs]
    assert printed == [['0.335'], ['0.867'], ['0.990'], ['1.000']]
