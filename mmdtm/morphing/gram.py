"""Gram matrices of tokens, on which matching and clustering work.

Merged tokens and cluster centres are sums of tokens up to a factor. Whatever
is asked of them, a cosine or a distance, follows from the products of the
tokens with each other, so the tokens are multiplied once, and no iteration
costs more for wider tokens.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

from .checks import require_finite, working_dtype


def gram_matrix(tokens: Tensor, check_finite: bool) -> Tensor:
    """Multiply all tokens of an image with each other: G = V V^T.

    Tokens in half precision go through a GPU's TF32 units, which have room for every
    bit of them; others would be rounded there, and do not.

    Args:
        tokens: Floating point (B, N, C).
        check_finite: Whether to raise on NaN and infinity, which waits for the
            device. Never checked while torch.compile traces.

    Returns:
        (B, N, N), float64 for float64 tokens and else float32, whatever
        autocast says.

    Raises:
        ValueError: If a token is not finite, or so large that its square is not.
    """
    half = tokens.dtype in (torch.bfloat16, torch.float16)
    units = _tf32() if half and not torch.compiler.is_compiling() else nullcontext()
    with torch.autocast(tokens.device.type, enabled=False), units:
        v = tokens.to(working_dtype(tokens.dtype))
        gram = v @ v.transpose(1, 2)
    if check_finite:
        require_finite(squared_norms(gram))
    return gram


@contextmanager
def _tf32() -> Iterator[None]:
    """Allow TF32 in products of float32 on a GPU."""
    matmul = torch.backends.cuda.matmul
    new = hasattr(matmul, 'fp32_precision')  # torch 2.9; the old name sets both
    before = matmul.fp32_precision if new else matmul.allow_tf32
    if before in ('tf32', True):
        yield
        return
    matmul.allow_tf32 = True
    try:
        yield
    finally:
        matmul.allow_tf32 = False
        if new:
            matmul.fp32_precision = before


def squared_norms(gram: Tensor) -> Tensor:
    """Return the diagonal, (B, N): each token's squared length."""
    return gram.diagonal(dim1=1, dim2=2)


def inverse_norms(gram: Tensor) -> Tensor:
    """Return 1 / |v_i|, (B, N), and 0 for a zero token: its cosines become 0."""
    return torch.threshold(squared_norms(gram), 0, torch.inf).rsqrt()
