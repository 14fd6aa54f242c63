import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdtm.morphing.gram import gram_matrix, inverse_norms, sum_rows


@given(
    st.integers(1, 3),
    st.integers(1, 10),
    st.integers(1, 4),
    st.integers(1, 10),
    st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None)
def test_sum_rows__is_the_product_with_the_membership_matrix(
    batch, rows, width, count, seed
):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(count, (batch, rows), generator=generator)
    matrix = torch.randn(batch, rows, width, dtype=torch.float64, generator=generator)
    member = torch.nn.functional.one_hot(labels, count).double().transpose(1, 2)
    torch.testing.assert_close(sum_rows(matrix, labels, count), member @ matrix)


def test_sum_rows__reads_transposed_matrices():
    matrix = torch.arange(6.0).view(1, 2, 3).transpose(1, 2)
    sums = sum_rows(matrix, torch.tensor([[1, 0, 1]]), 2)
    assert sums.tolist() == [[[1.0, 4.0], [2.0, 8.0]]]


def test_gram_matrix__keeps_float64_and_nothing_less_than_float32():
    tokens = torch.randn(2, 5, 3, dtype=torch.float64)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        x = tokens.to(dtype)
        gram = gram_matrix(x, check_finite=True)
        expected = torch.float64 if dtype == torch.float64 else torch.float32
        assert gram.dtype == expected
        torch.testing.assert_close(gram, x.to(expected) @ x.to(expected).mT)


def test_inverse_norms__of_a_zero_token_is_zero():
    gram = gram_matrix(torch.tensor([[[3.0, 4.0], [0.0, 0.0]]]), check_finite=True)
    assert gram.tolist() == [[[25.0, 0.0], [0.0, 0.0]]]
    torch.testing.assert_close(inverse_norms(gram), torch.tensor([[0.2, 0.0]]))
