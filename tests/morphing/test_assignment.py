import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from mmdtm.morphing import TokenAssignment

LABELS = torch.tensor([[0, 2, 0, 1, 2, 2], [1, 1, 1, 0, 2, 1]])


def loop_morph(x, labels, num_morphed, reduce):
    out = torch.zeros(x.shape[0], num_morphed, x.shape[2], dtype=x.dtype)
    for b in range(x.shape[0]):
        for group in range(num_morphed):
            members = [x[b, i] for i in range(x.shape[1]) if labels[b, i] == group]
            if members:
                total = sum(members)
                out[b, group] = total / len(members) if reduce == 'mean' else total
    return out


@given(
    st.integers(1, 4),
    st.integers(1, 12),
    st.integers(1, 5),
    st.integers(1, 12),
    st.sampled_from(['mean', 'sum']),
    st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None)
def test_morph__is_what_loops_give(batch, tokens, channels, groups, reduce, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(groups, (batch, tokens), generator=generator)
    x = torch.randn(batch, tokens, channels, dtype=torch.float64, generator=generator)
    assignment = TokenAssignment(labels, groups)

    expected = loop_morph(x, labels, groups, reduce)
    torch.testing.assert_close(assignment.morph(x, reduce), expected)
    sizes = [[row.count(g) for g in range(groups)] for row in labels.tolist()]
    assert assignment.sizes().tolist() == sizes


def test_unmorph__gives_each_token_its_group():
    y = torch.randn(2, 3, 5)
    x = TokenAssignment(LABELS, 3).unmorph(y)
    assert x.shape == (2, 6, 5)
    for b in range(2):
        for i in range(6):
            assert torch.equal(x[b, i], y[b, LABELS[b, i]])


def test_matrix__is_the_papers_m():
    assignment = TokenAssignment(LABELS, 3)
    m = assignment.matrix(torch.float64)
    assert m.shape == (2, 3, 6)
    assert m.dtype == torch.float64
    for b in range(2):
        for i in range(6):
            column = [float(g == LABELS[b, i]) for g in range(3)]
            assert m[b, :, i].tolist() == column
    x = torch.randn(2, 6, 4, dtype=torch.float64)
    torch.testing.assert_close(assignment.morph(x, 'sum'), m @ x)
    y = torch.randn(2, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(assignment.unmorph(y), m.transpose(1, 2) @ y)


def test_identity__changes_nothing():
    assignment = TokenAssignment.identity(2, 5)
    x = torch.randn(2, 5, 3)
    assert assignment.num_morphed == 5
    assert torch.equal(assignment.morph(x), x)
    assert torch.equal(assignment.unmorph(x), x)
    assert torch.equal(assignment.sizes(), torch.ones(2, 5, dtype=torch.int64))


def test_empty_group__has_size_and_mean_zero():
    assignment = TokenAssignment(torch.tensor([[0, 2]]), 3)
    x = torch.ones(1, 2, 4, requires_grad=True)
    merged = assignment.morph(x)
    assert assignment.sizes().tolist() == [[1, 0, 1]]
    assert merged[0, 1].tolist() == [0.0] * 4
    merged.sum().backward()
    assert torch.equal(x.grad, torch.ones(1, 2, 4))


@pytest.mark.parametrize('reduce', ['mean', 'sum'])
def test_gradients__are_those_of_finite_differences(reduce):
    assignment = TokenAssignment(LABELS, 4)  # one group is empty
    x = torch.randn(2, 6, 3, dtype=torch.float64, requires_grad=True)
    y = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: assignment.morph(x, reduce), x)
    assert gradcheck(assignment.unmorph, y)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('reduce', ['mean', 'sum'])
def test_morph__rounds_half_precision_once(dtype, reduce):
    x = torch.randn(2, 60, 32).to(dtype)
    assignment = TokenAssignment(torch.randint(3, (2, 60)), 3)
    merged = assignment.morph(x, reduce)
    assert merged.dtype == dtype
    assert torch.equal(merged, assignment.morph(x.float(), reduce).to(dtype))


def test_autocast__keeps_the_dtype():
    assignment = TokenAssignment(LABELS, 3)
    x = torch.randn(2, 6, 3)
    with torch.autocast('cpu', torch.bfloat16):
        merged = assignment.morph(x)
    assert merged.dtype == torch.float32
    assert torch.equal(merged, assignment.morph(x))


def test_to__moves_the_labels():
    moved = TokenAssignment(LABELS, 3).to('meta')
    assert moved.labels.device.type == 'meta'
    assert moved.num_morphed == 3


@pytest.mark.parametrize(
    ('labels', 'num_morphed', 'message'),
    [
        (
            torch.zeros(3, dtype=torch.int64),
            1,
            r'Tensor of shape \(3,\). Give a tensor of shape \(B, N\)',
        ),
        (torch.zeros(2, 0, dtype=torch.int64), 1, r'no empty'),
        ([[0, 1]], 2, 'labels are a list'),
        (torch.zeros(2, 3), 1, 'are torch.float32, not int64. Convert'),
        (torch.zeros(2, 3, dtype=torch.int32), 1, r'labels\.long\(\)'),
        (torch.tensor([[0, 3]]), 3, r'run from 0 to 3. Give some of 0 to 2'),
        (torch.tensor([[-1, 1]]), 3, 'from -1 to 1'),
        (
            torch.zeros(1, 2, dtype=torch.int64),
            0,
            'num_morphed is .* Give an int at least 1',
        ),
        (torch.zeros(1, 2, dtype=torch.int64), 1.0, 'num_morphed is .* Give an int'),
    ],
)
def test_init__refuses(labels, num_morphed, message):
    with pytest.raises(ValueError, match=message):
        TokenAssignment(labels, num_morphed)


@pytest.mark.parametrize(
    ('x', 'message'),
    [
        (torch.zeros(2, 6), r'x has shape .* Give \(B, N, C\)'),
        (torch.zeros(2, 5, 3), r'x has shape .* Give \(2, 6, C\)'),
        (torch.zeros(3, 6, 3), r'shape \(3, 6, 3\), .* Give \(2, 6, C\)'),
        (torch.zeros(2, 6, 3, dtype=torch.int64), 'floating point'),
        ('tokens', 'x is a str. Give a tensor'),
    ],
)
def test_morph__refuses(x, message):
    with pytest.raises(ValueError, match=message):
        TokenAssignment(LABELS, 3).morph(x)


def test_morph__refuses_an_unknown_reduction():
    with pytest.raises(ValueError, match="reduce is 'max'. Give one of"):
        TokenAssignment(LABELS, 3).morph(torch.zeros(2, 6, 1), 'max')


def test_unmorph__refuses_the_number_of_tokens():
    with pytest.raises(ValueError, match=r'y has shape .* Give \(2, 3, C\)'):
        TokenAssignment(LABELS, 3).unmorph(torch.zeros(2, 6, 1))
    with pytest.raises(ValueError, match=r'y has shape .* Give \(B, N, C\)'):
        TokenAssignment(LABELS, 3).unmorph(torch.zeros(2, 3))


def test_identity__refuses_nothing():
    with pytest.raises(ValueError, match='num_tokens is .* at least 1'):
        TokenAssignment.identity(1, 0)
    with pytest.raises(ValueError, match='batch_size is .* at least 1'):
        TokenAssignment.identity(0, 1)
