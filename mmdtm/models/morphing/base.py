"""What all registered morphings share: levels, and draws that survive a restart."""

from abc import ABCMeta, abstractmethod

import torch
from mmengine.dist import get_rank
from torch import Tensor, nn

from mmdtm.morphing import Draw, TokenAssignment
from mmdtm.morphing.checks import check_count, check_tokens


class BaseMorphing(nn.Module, metaclass=ABCMeta):
    """Groups the target tokens, once per level, without gradient.

    A subclass implements `assign` for one level. Everything random in it comes
    from the `Draw` it is given, so that it is a pure function of (seed, step,
    level, rank). Seed and step are saved with the model, and a loaded seed wins
    over ``seed``: a resumed run draws what the unbroken one would have drawn.
    The step counts forward passes in training mode; in evaluation mode it
    stands still, and the same draws come again.

    Args:
        levels: L, how many assignments one forward pass gives.
        seed: of all draws; None takes torch's initial seed, which a runner has
            set by then.
        share_across_ranks: whether all processes draw the same, so that their
            number does not matter; otherwise each draws its own.

    Raises:
        ValueError: if ``levels`` or ``seed`` is out of range.
    """

    def __init__(
        self, levels: int = 1, seed: int | None = None, share_across_ranks: bool = False
    ) -> None:
        super().__init__()
        if seed is None:
            seed = torch.initial_seed() % 2**63
        check_count(levels, 1, None, 'levels')
        check_count(seed, 0, 2**63 - 1, 'seed')
        self.levels = levels
        self.share_across_ranks = share_across_ranks
        self.register_buffer('draw_state', torch.tensor([seed, 0]))
        # The buffer is what is saved, and what DDP and a checkpoint overwrite
        # before the first step. Reading it waits for the device, so that
        # happens once; from there its numbers are followed here.
        self._seed_and_step = None

    # The schedule changes in every step; a compiled model steps over it.
    @torch.compiler.disable
    @torch.no_grad()
    def forward(self, tokens: Tensor) -> list[TokenAssignment]:
        """Group tokens (B, N, D); return one `TokenAssignment` per level.

        Raises:
            ValueError: if the tokens' shape or dtype, or the morphing's numbers
                for this N, are wrong.
        """
        check_tokens(tokens)
        if self._seed_and_step is None:
            self._seed_and_step = tuple(self.draw_state.tolist())
        seed, step = self._seed_and_step
        rank = 0 if self.share_across_ranks else get_rank()
        assignments = [
            self.assign(tokens, Draw(seed, step, level, rank))
            for level in range(self.levels)
        ]
        if self.training:
            self.draw_state[1] += 1
            self._seed_and_step = (seed, step + 1)
        return assignments

    @abstractmethod
    def assign(self, tokens: Tensor, draw: Draw) -> TokenAssignment:
        """Group tokens (B, N, D) for one level.

        The tokens are not checked for NaN here: that would wait for the device
        in every step, and the loss, which then is NaN too, is watched anyway.
        """

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._seed_and_step = None

    def extra_repr(self) -> str:
        return f'levels={self.levels}, share_across_ranks={self.share_across_ranks}'
