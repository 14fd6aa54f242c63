"""Position tables: the index against timm's, the resize against SciPy's."""

import mmdtm.plugin  # noqa: F401  # isort: skip

import numpy as np
import pytest
import torch
from reference import resize_by_splines
from timm.models.beit import gen_relative_position_index

from mmdtm.models.backbones.position_bias import (
    position_index,
    resize_table,
    table_length,
)


@pytest.mark.parametrize('grid', [(1, 1), (2, 2), (14, 14), (3, 5), (5, 2)])
def test_position_index__is_timms(grid):
    assert torch.equal(position_index(grid), gen_relative_position_index(grid))


@pytest.mark.parametrize(
    ('source', 'target'),
    [
        ((14, 14), (32, 32)),  # 224 to 512 pixels
        ((14, 14), (24, 24)),  # 224 to 384 pixels
        ((14, 14), (16, 16)),
        ((24, 24), (14, 14)),
        ((14, 14), (32, 43)),
        ((4, 7), (9, 5)),
    ],
)
def test_resize_table__equals_scipys_splines(source, target):
    table = torch.randn(table_length(source), 3, dtype=torch.float64)
    resized = resize_table(table, source, target)
    assert resized.shape == (table_length(target), 3)
    expected = resize_by_splines(table.numpy(), source, target)
    np.testing.assert_allclose(resized.numpy(), expected, rtol=0, atol=1e-9)


def test_resize_table__keeps_class_entries_centre_and_dtype():
    table = torch.randn(table_length((14, 14)), 2)
    resized = resize_table(table, (14, 14), (24, 24))
    assert resized.dtype == torch.float32
    assert torch.equal(resized[-3:], table[-3:])
    # Offset 0 lies at 0 before and after.
    centre = table[:-3].reshape(27, 27, 2)[13, 13]
    torch.testing.assert_close(resized[:-3].reshape(47, 47, 2)[23, 23], centre)


def test_resize_table__same_grid_is_the_table_itself():
    table = torch.randn(table_length((3, 5)), 2)
    assert resize_table(table, (3, 5), (3, 5)) is table


@pytest.mark.parametrize('source', [(1, 1), (2, 2), (1, 3)])
def test_resize_table__of_tiny_grids_keeps_a_constant(source):
    table = torch.full((table_length(source), 1), 0.7)
    resized = resize_table(table, source, (6, 6))
    torch.testing.assert_close(resized, torch.full_like(resized, 0.7))


def test_resize_table__passes_gradients():
    table = torch.randn(
        table_length((4, 4)), 2, dtype=torch.float64, requires_grad=True
    )
    assert torch.autograd.gradcheck(lambda t: resize_table(t, (4, 4), (5, 6)), table)


def test_resize_table__is_exact_under_autocast():
    table = torch.randn(table_length((4, 4)), 2)
    expected = resize_table(table, (4, 4), (6, 6))
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(resize_table(table, (4, 4), (6, 6)), expected)


def test_resize_table__wrong_length_is_named():
    with pytest.raises(ValueError, match=r'\(52, 2\) .* 3 x 3 patches: 28 rows'):
        resize_table(torch.zeros(52, 2), (3, 3), (4, 4))


def test_caches__do_not_keep_the_default_device():
    """What was built under another default device must not come back from it."""
    with torch.device('meta'):
        resize_table(torch.zeros(table_length((3, 3)), 1, device='cpu'), (3, 3), (7, 7))
        position_index((7, 7))
    table = torch.ones(table_length((3, 3)), 1)
    assert resize_table(table, (3, 3), (7, 7)).device.type == 'cpu'
    assert position_index((7, 7)).device.type == 'cpu'
