import json

import pytest
import torch
from tiny_run import load_tool, run_tool

from mmdtm.morphing import bipartite_matching

SCRIPT = 'benchmark/matching.py'


def test_figures__of_every_way_are_written(tmp_path, capsys):
    out = tmp_path / 'figures.json'
    arguments = (
        '--batch 2 --tokens 13 --channels 4 --num-iters 1 3 --repeats 2 --warmup 1'
    )
    run_tool(SCRIPT, *arguments.split(), '--device', 'cpu', '--out', out)
    figures = json.loads(out.read_text())
    assert (figures['tokens'], figures['num_morphed']) == (13, 6)
    assert len(figures['median_seconds']) == 8
    assert all(seconds > 0 for seconds in figures['median_seconds'].values())
    assert '2 images of 13 x 4, 6 groups' in capsys.readouterr().out


@pytest.mark.parametrize('schedule', [(4,), (2, 0, 5), (20, 0, 0, 0, 0)])
def test_feature_matching__gives_the_groups_of_the_gram_matrix(schedule):
    feature_matching = load_tool(SCRIPT).feature_matching
    tokens = torch.randn(3, 17, 5, dtype=torch.float64)
    theirs = feature_matching(tokens, schedule)
    ours = bipartite_matching(tokens, schedule)
    assert torch.equal(theirs.labels, ours.labels)
    assert theirs.num_morphed == ours.num_morphed
