import torch

from mmdtm.morphing.gram import gram_matrix, inverse_norms


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
