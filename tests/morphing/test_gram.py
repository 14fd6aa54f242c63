import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

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


MATMUL = torch.backends.cuda.matmul


class Products(TorchDispatchMode):
    """Notes whether products may use TF32."""

    def __init__(self):
        super().__init__()
        self.tf32 = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if operation.__name__.startswith('bmm'):
            self.tf32.append(MATMUL.allow_tf32)
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize('before', ['none', 'ieee', 'tf32'])
def test_gram_matrix__of_half_precision_may_use_tf32(before):
    """By the sign, 8 bits of exponent and 10 of mantissa that TF32 has."""
    MATMUL.allow_tf32 = before == 'tf32'
    MATMUL.fp32_precision = before
    try:
        for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
            tokens = torch.randn(2, 5, 3, dtype=torch.float64).to(dtype)
            with Products() as products:
                gram_matrix(tokens, check_finite=False)
            exact = (tokens.float().view(torch.int32) & 0x1FFF == 0).all().item()
            assert exact == (dtype.itemsize == 2)
            assert products.tf32 == [exact or before == 'tf32']
            assert MATMUL.fp32_precision == before
            assert MATMUL.allow_tf32 == (before == 'tf32')
    finally:
        MATMUL.allow_tf32 = False
        MATMUL.fp32_precision = 'none'
