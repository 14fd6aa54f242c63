import json

from tiny_run import run_tool

SCRIPT = 'benchmark/matching.py'


def test_figures__of_every_way_are_written(tmp_path, capsys):
    out = tmp_path / 'figures.json'
    arguments = (
        '--batch 2 --tokens 13 --channels 4 --num-iters 1 3 --repeats 2 --warmup 1'
    )
    run_tool(SCRIPT, *arguments.split(), '--device', 'cpu', '--out', out)
    figures = json.loads(out.read_text())
    assert (figures['tokens'], figures['num_morphed']) == (13, 6)
    assert len(figures['rows']) == 8
    assert all(row['milliseconds'] > 0 for row in figures['rows'])
    assert figures['rows'][0]['ratio'] == 1
    assert '2 images of 13 x 4, 6 groups' in capsys.readouterr().out
