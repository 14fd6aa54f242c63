"""What every teacher has in common."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Callable

from torch import Tensor

from mmdtm.models.target_generators.frozen import FrozenTower
from mmdtm.morphing import TokenAssignment

Morphing = Callable[[Tensor], list[TokenAssignment]]


class Teacher(metaclass=ABCMeta):
    """Turns images into target tokens v, which alone decide how they are grouped."""

    view: int

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Compute the target tokens, (B, N, D), of images (B, 3, H, W)."""

    def targets(
        self, images: Tensor, morphing: Morphing
    ) -> tuple[Tensor, list[TokenAssignment]]:
        """Compute target tokens and their grouping.

        Args:
            images: See :meth:`FrozenTower.run`.
            morphing: Groups the tokens; unused by a teacher that does so itself.

        Returns:
            v, float32 (B, N, D), and M^1..M^L, all without gradient.

        Raises:
            ValueError: See :meth:`FrozenTower.run`.
        """
        tokens = self(images)  # type: ignore[operator]
        return tokens, morphing(tokens)

    def check_morphing(self, morphing: object | None) -> None:
        """Check that there is a morphing for :meth:`targets`.

        Raises:
            ValueError: If it is missing, or superfluous.
        """
        if morphing is None:
            raise ValueError(
                f'{type(self).__name__} does not merge tokens, and morphing is None. '
                "Give a morphing, for instance dict(type='BipartiteMorphing')."
            )


class TargetGenerator(Teacher, FrozenTower):
    """A teacher: a frozen network that turns images into target tokens v.

    A subclass hands :class:`FrozenTower` a function that builds the network,
    and implements :meth:`extract_tokens`, and :meth:`resize_teacher` where the
    network can run at another input size. Its constructor passes ``mean``,
    ``std``, ``dtype`` and ``random_weights`` on.
    """

    @abstractmethod
    def extract_tokens(self, images: Tensor) -> Tensor:
        """Run the network ``self.teacher``.

        Args:
            images: float (B, 3, H, W), (H, W) being ``input_size``.

        Returns:
            Patch tokens (B, N, D) alone, row-major.
        """

    def forward(self, images: Tensor) -> Tensor:
        """Compute the target tokens.

        Args:
            images: See :meth:`FrozenTower.run`.

        Returns:
            v, float32 (B, N, D): patch tokens only, row-major.

        Raises:
            ValueError: See :meth:`FrozenTower.run`.
        """
        return self.run(self.extract_tokens, images).float()

    def targets(
        self, images: Tensor, morphing: Morphing
    ) -> tuple[Tensor, list[TokenAssignment]]:
        """See :meth:`Teacher.targets`.

        The tokens are grouped in the precision that they were computed in: of half
        precision the products are cheaper, and the same.
        """
        tokens = self.run(self.extract_tokens, images)
        return tokens.float(), morphing(tokens)

    def extra_repr(self) -> str:
        return f'{super().extra_repr()}, {self.out_channels} channels'
