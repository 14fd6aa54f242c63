"""Morphings: how the target tokens are grouped; importing registers them.

Each class keeps the hyper-parameters of one function of ``mmdtm.morphing``, which
checks them in the first forward pass, and ``BaseMorphing`` draws what is random.
"""

import math
from abc import ABCMeta, abstractmethod
from typing import Any, ClassVar

import torch
from mmengine.dist import get_rank
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from mmdtm.morphing import (
    Draw,
    DynamicSchedule,
    TokenAssignment,
    bipartite_matching,
    downsample,
    dpc_knn,
    kmeans,
)
from mmdtm.morphing.checks import check_count, check_tokens
from mmdtm.morphing.gram import gram_matrix


class BaseMorphing(nn.Module, metaclass=ABCMeta):
    """Groups the target tokens, once per level, without gradient.

    A subclass implements ``assign`` for one level. Everything random in it comes
    from the ``Draw`` it is given, so that it is a pure function of (seed, step,
    level, rank). Seed and step are saved with the model, and a loaded seed wins
    over ``seed``: a resumed run draws what the unbroken one would have drawn.
    The step counts forward passes in training mode; in evaluation mode it
    stands still, and the same draws come again.

    Args:
        levels: L, how many assignments one forward pass gives.
        seed: Of all draws; None takes torch's initial seed, which a runner has
            set by then.
        share_across_ranks: Whether all processes draw the same, so that their
            number does not matter; otherwise each draws its own.

    Raises:
        ValueError: If ``levels`` or ``seed`` is out of range.
    """

    draw_state: Tensor  # seed and step

    def __init__(
        self, levels: int = 2, seed: int | None = None, share_across_ranks: bool = False
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
        self._seed_and_step: tuple[int, int] | None = None

    # The schedule changes in every step; a compiled model steps over it.
    @torch.compiler.disable
    @torch.no_grad()
    def forward(self, tokens: Tensor) -> list[TokenAssignment]:
        """Group tokens (B, N, D); return one ``TokenAssignment`` per level.

        Raises:
            ValueError: If the tokens or an option are wrong, from the function of
                ``mmdtm.morphing``.
        """
        if self._seed_and_step is None:
            seed, step = self.draw_state.tolist()
            self._seed_and_step = (seed, step)
        seed, step = self._seed_and_step
        shared = self.prepare(tokens)
        rank = 0 if self.share_across_ranks else get_rank()
        assignments = [
            self.assign(tokens, Draw(seed, step, level, rank), **shared)
            for level in range(self.levels)
        ]
        if self.training:
            self.draw_state[1] += 1
            self._seed_and_step = (seed, step + 1)
        return assignments

    def prepare(self, tokens: Tensor) -> dict[str, Any]:
        """Compute what all levels of a step need: keyword arguments of `assign`."""
        return {}

    @abstractmethod
    def assign(self, tokens: Tensor, draw: Draw, **shared: Any) -> TokenAssignment:
        """Group tokens (B, N, D) for one level; ``shared`` is from `prepare`.

        The tokens are not checked for NaN here: that would wait for the device
        in every step, and the loss, which then is NaN too, is watched anyway.
        """

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._seed_and_step = None

    def extra_repr(self) -> str:
        return f'levels={self.levels}, share_across_ranks={self.share_across_ranks}'


class GramMorphing(BaseMorphing):
    """One that works on the tokens' products: they are multiplied once a step."""

    def prepare(self, tokens: Tensor) -> dict[str, Any]:
        check_tokens(tokens)
        return dict(gram=gram_matrix(tokens, check_finite=False))


@MODELS.register_module()
class IdentityMorphing(BaseMorphing):
    """Every token its own morphed token: token-wise supervision (tables 4, 8)."""

    def __init__(self) -> None:
        super().__init__(levels=1)

    def assign(self, tokens: Tensor, draw: Draw, **shared: Any) -> TokenAssignment:
        batch_size, num_tokens, _ = tokens.shape
        return TokenAssignment.identity(batch_size, num_tokens, tokens.device)


@MODELS.register_module()
class BipartiteMorphing(GramMorphing):
    """Dynamic token morphing by bipartite matching (section 4.2).

    Each level draws a number of morphed tokens N_m and of iterations k for
    the whole batch, and matches the tokens accordingly.

    Args:
        num_morphed: Inclusive range of N_m; a highest of None is N, and None
            alone (1, N). An int fixes it (table 8: 98 of 196).
        num_iters: Inclusive range of k, or an int to fix it.
        partition: 'alternate' or 'random', see
            ``mmdtm.morphing.bipartite_matching``.
        reach_num_morphed: Whether every schedule reaches the N_m that was drawn
            for it, see ``mmdtm.morphing.DynamicSchedule``. Without it 17 % of the
            draws leave more of 196 tokens than that, and never fewer than 8.
        same_iters: whether all processes draw the same k, each its own N_m. No
            process then waits for another with more iterations. What a process
            draws is distributed as before; but the processes' draws of one step
            are no longer independent.
        **kwargs: Levels, seed and share_across_ranks of ``BaseMorphing``.
    """

    # Half of 16 tokens where the number is fixed.
    smoke: ClassVar[dict] = dict(num_morphed=lambda n: 8 if isinstance(n, int) else n)

    def __init__(
        self,
        num_morphed: int | tuple[int, int | None] | None = (1, None),
        num_iters: int | tuple[int, int] = (1, 14),
        partition: str = 'alternate',
        reach_num_morphed: bool = False,
        same_iters: bool = False,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.same_iters = same_iters
        self.num_morphed = num_morphed
        self.num_iters = num_iters
        self.partition = partition
        self.reach_num_morphed = reach_num_morphed

    def assign(self, tokens: Tensor, draw: Draw, **shared: Any) -> TokenAssignment:
        schedule = DynamicSchedule(
            tokens.shape[1], self.num_morphed, self.num_iters, self.reach_num_morphed
        )
        return bipartite_matching(
            tokens,
            schedule.draw(*draw, iters_rank=0 if self.same_iters else None),
            self.partition,
            generator=draw.generator('partition'),
            check_finite=False,
            **shared,
        )


@MODELS.register_module()
class ReleaseMorphing(GramMorphing):
    """Bipartite matching by the rules of the authors' release.

    They depart from the paper: 0 to N tokens are drawn to merge, and each of k
    iterations is asked for the quotient, rounded up unless that makes more than
    N in all. The first patch is taken for a class token: it never merges, an
    iteration merges at most floor((t - 1) / 2) of t tokens (what it is asked
    beyond that is forgotten), and what did not merge stays in order.

    Args:
        num_iters: Inclusive range of k, or an int to fix it.
        **kwargs: Levels, seed and share_across_ranks of ``BaseMorphing``.
    """

    def __init__(self, num_iters: int | tuple[int, int] = (1, 14), **kwargs) -> None:
        super().__init__(**kwargs)
        self.num_iters = num_iters

    def assign(self, tokens: Tensor, draw: Draw, **shared: Any) -> TokenAssignment:
        num_tokens = tokens.shape[1]
        total = draw.uniform_int(0, num_tokens, 'num_merged')
        num_iters = draw.choose(self.num_iters, None, 'num_iters')
        each = -(-total // num_iters)
        if each * num_iters > num_tokens:
            each = total // num_iters
        # To carry what is over, as the matching does, or to forget it comes to
        # the same where no iteration is asked for less than the one before.
        schedule = (each,) * num_iters
        return bipartite_matching(
            tokens, schedule, class_token=True, check_finite=False, **shared
        )


@MODELS.register_module()
class KMeansMorphing(GramMorphing):
    """Morphing by K-means on normalised tokens (table 11).

    Args:
        num_clusters: N_m, an int, or an inclusive range to draw it from in
            each step and level, where a highest of None is N.
        num_iters: Of Lloyd's algorithm, an int, or an inclusive range to draw it
            from in each step and level.
        **kwargs: Levels, seed and share_across_ranks of ``BaseMorphing``.
    """

    def __init__(
        self,
        num_clusters: int | tuple[int, int | None] = (1, None),
        num_iters: int | tuple[int, int] = (1, 14),
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.num_clusters = num_clusters
        self.num_iters = num_iters

    def assign(self, tokens: Tensor, draw: Draw, **shared: Any) -> TokenAssignment:
        return kmeans(
            tokens,
            draw.choose(self.num_clusters, tokens.shape[1], 'num_clusters'),
            draw.choose(self.num_iters, None, 'num_iters'),
            generator=draw.generator('centres'),
            check_finite=False,
            **shared,
        )


@MODELS.register_module()
class DPCKNNMorphing(GramMorphing):
    """Morphing by density-peaks clustering, with a random number of clusters.

    Args:
        num_clusters: N_m, an int, or an inclusive range to draw it from in
            each step and level, where a highest of None is N.
        num_neighbors: Of the density estimate.
        **kwargs: Levels, seed and share_across_ranks of ``BaseMorphing``.
    """

    def __init__(
        self,
        num_clusters: int | tuple[int, int | None] = (1, None),
        num_neighbors: int = 5,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.num_clusters = num_clusters
        self.num_neighbors = num_neighbors

    def assign(self, tokens: Tensor, draw: Draw, **shared: Any) -> TokenAssignment:
        num_clusters = draw.choose(self.num_clusters, tokens.shape[1], 'num_clusters')
        return dpc_knn(
            tokens, num_clusters, self.num_neighbors, check_finite=False, **shared
        )


@MODELS.register_module()
class DownsampleMorphing(BaseMorphing):
    """Merge the tokens of each window of the grid (table 2, downsampling).

    Args:
        stride: Height and width of a window in tokens, or one int for both.
        grid_size: (h, w) of the token grid; None for a square one.
    """

    def __init__(
        self,
        stride: int | tuple[int, int] = 2,
        grid_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(levels=1)
        self.stride = stride
        self.grid_size = grid_size

    def assign(self, tokens: Tensor, draw: Draw, **shared: Any) -> TokenAssignment:
        """Group tokens (B, N, D).

        Raises:
            ValueError: If the grid does not have as many tokens as there are.
        """
        batch_size, num_tokens, _ = tokens.shape
        side = math.isqrt(num_tokens)
        height, width = self.grid_size or (side, side)
        if height * width != num_tokens:
            raise ValueError(
                f'{num_tokens} tokens do not fill a grid of {height} x {width}. '
                'Give DownsampleMorphing the grid_size=(h, w) of the teacher.'
            )
        return downsample((height, width), self.stride, batch_size, tokens.device)
