"""Random choices that depend on nothing but where they are made."""

import hashlib
from typing import NamedTuple

import torch
from torch import Tensor

from .checks import check_range


class Draw(NamedTuple):
    """What a random choice of one level in one training step depends on.

    The same four numbers choose the same, whatever was drawn before and on
    whatever device, so a resumed run continues with the draws of the unbroken
    one. Choices made for different purposes are independent.
    """

    seed: int
    step: int
    level: int = 0
    rank: int = 0

    def uniform_int(self, low: int, high: int, purpose: str) -> int:
        """Choose an int in [low, high], uniformly."""
        # 63 bits against ranges of hundreds: the remainder's bias is nothing.
        return low + self._number(purpose) % (high - low + 1)

    def choose(
        self, span: int | tuple[int, int | None] | None, high: int | None, name: str
    ) -> int:
        """Choose how many, uniformly: the name is the purpose.

        Args:
            span: An int, which is it; or an inclusive range within [1, high],
                where a highest of None is ``high``. None is the whole range.
            high: The highest allowed; None leaves it open.
            name: How error messages call it.

        Raises:
            ValueError: If the range is empty or leaves [1, high].
        """
        return self.uniform_int(*check_range(span, 1, high, name), name)

    def generator(self, purpose: str) -> torch.Generator:
        """Return a torch generator on the CPU, for choices made by torch."""
        return torch.Generator().manual_seed(self._number(purpose))

    def _number(self, purpose: str) -> int:
        """63 bits that look random, from a hash that is alike everywhere."""
        key = f'{self.seed}/{self.step}/{self.level}/{self.rank}/{purpose}'
        return int.from_bytes(hashlib.sha512(key.encode()).digest()[:8], 'big') >> 1


def without_waiting(drawn: Tensor, device: torch.device) -> Tensor:
    """Move what a generator drew to a device; a GPU's stream is not waited for."""
    if device.type != 'cuda' or drawn.is_cuda:
        return drawn.to(device)
    return drawn.pin_memory().to(device, non_blocking=True)
