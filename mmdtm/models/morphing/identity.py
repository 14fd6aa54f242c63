"""No morphing: the token-wise baseline."""

from mmpretrain.registry import MODELS
from torch import Tensor

from mmdtm.morphing import Draw, TokenAssignment

from .base import BaseMorphing


@MODELS.register_module()
class IdentityMorphing(BaseMorphing):
    """Every token its own morphed token: token-wise supervision (tables 4, 8)."""

    def __init__(self) -> None:
        super().__init__(levels=1)

    def assign(self, tokens: Tensor, draw: Draw) -> TokenAssignment:
        """See `BaseMorphing.assign`."""
        return TokenAssignment.identity(*tokens.shape[:2], tokens.device)
