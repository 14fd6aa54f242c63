"""The loss of DTM as a module."""

from collections.abc import Sequence

from mmpretrain.registry import MODELS
from torch import Tensor, nn

from mmdtm.morphing import TokenAssignment, dtm_loss
from mmdtm.morphing.checks import check_option
from mmdtm.morphing.loss import DISTANCES, REDUCTIONS


@MODELS.register_module()
class DTMLoss(nn.Module):
    """`mmdtm.morphing.dtm_loss` (Eq. 3-5) with its options kept.

    A loss that is not finite is returned, not raised: the training loop
    watches for it, and knows the step and the images.

    Args:
        distance: 'cosine', 'l1', 'l2' or 'smooth_l1' (table 10).
        reduction: 'mean' over tokens and levels, or 'sum' as Eq. (4-5) print.
        beta: of smooth l1.

    Raises:
        ValueError: if an option is unknown or ``beta`` is not above 0.
    """

    def __init__(
        self, distance: str = 'cosine', reduction: str = 'mean', beta: float = 1.0
    ) -> None:
        super().__init__()
        check_option(distance, DISTANCES, 'distance')
        check_option(reduction, REDUCTIONS, 'reduction')
        if not beta > 0:
            raise ValueError(f'beta must be above 0, got {beta}')
        self.distance = distance
        self.reduction = reduction
        self.beta = beta

    def forward(
        self, online: Tensor, target: Tensor, assignments: Sequence[TokenAssignment]
    ) -> Tensor:
        """Compare online and target tokens, (B, N, D) each; return a scalar."""
        return dtm_loss(
            online,
            target,
            assignments,
            self.distance,
            self.reduction,
            self.beta,
            check_finite=False,
        )

    def extra_repr(self) -> str:
        return (
            f'distance={self.distance!r}, reduction={self.reduction!r}, '
            f'beta={self.beta}'
        )
