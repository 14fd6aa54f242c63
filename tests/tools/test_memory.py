"""What tools/benchmark/memory.py counts, against values by hand."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from tiny_run import load_tool

ROOT = Path(__file__).parents[2]
tool = load_tool('benchmark/memory.py')


def counted(function) -> dict[str, int]:
    with tool.fake_gpu(), torch.autocast('cpu', enabled=False):
        counter = tool.TrafficCounter()
        inputs = torch.empty(8, 16), torch.empty(1, 16).expand(8, -1)
        with counter:
            function(*inputs)
    return {name: moved for (_, name), moved in counter.bytes.items()}


@pytest.mark.parametrize(
    'function, expected',
    [
        (lambda x, row: x + x, dict(add=3 * 512)),  # of one tensor, read twice
        (lambda x, row: x + row, dict(add=2 * 512 + 64)),  # a row is read once
        (lambda x, row: x.add_(row), dict(add_=2 * 512 + 64)),
        (lambda x, row: x.t(), {}),
        (lambda x, row: x.bfloat16(), dict(_to_copy=512 + 256)),
        (lambda x, row: F.linear(x, x), {}),  # a product
        (lambda x, row: torch._foreach_mul_([x, x], 2.0), dict(_foreach_mul_=4 * 512)),
        (lambda x, row: torch.mul(x, x, out=torch.empty(8, 16)), dict(mul=3 * 512)),
    ],
)
def test_traffic_is_what_is_read_and_written(function, expected):
    assert counted(function) == expected


@pytest.mark.slow
def test_a_step_of_vit_b_moves_at_most_75_gb():
    cfg = Config.fromfile(ROOT / 'configs/dtm_vit-b_300e.py')
    assert 40e9 < tool.traffic(cfg, 128).bytes.total() < 75e9
