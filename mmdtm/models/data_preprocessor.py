"""One crop in, the student's and the teacher's view of it out."""

from collections.abc import Sequence

import torch
from mmpretrain.models.utils import SelfSupDataPreprocessor
from mmpretrain.registry import MODELS


@MODELS.register_module()
class DTMDataPreprocessor(SelfSupDataPreprocessor):
    """Normalise the same crop twice: for the student and for the teacher.

    One uint8 crop travels to the device; both views are made there. The masks
    stay where they are: the algorithm moves them as one tensor.

    Args:
        mean: The student's pixel mean, RGB, on the 0-255 scale.
        std: The student's pixel standard deviation, RGB, on the 0-255 scale.
        to_rgb: Whether the pipeline delivers BGR, as OpenMMLab's loaders do.
        target_mean: The teacher's pixel mean. None, the default, takes the
            one that the teacher was trained with; the authors' release uses
            the student's instead (``configs/release``).
        target_std: Likewise the standard deviation.
        non_blocking: Whether the copy to the device may overlap computation.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        to_rgb: bool = True,
        target_mean: Sequence[float] | None = None,
        target_std: Sequence[float] | None = None,
        non_blocking: bool = True,
    ) -> None:
        super().__init__(mean=mean, std=std, to_rgb=to_rgb, non_blocking=non_blocking)
        if (target_mean is None) != (target_std is None):
            raise ValueError(
                'DTMDataPreprocessor: give target_mean and target_std together, or '
                f'neither; got {target_mean} and {target_std}.'
            )
        self.has_target_norm = target_mean is not None
        self.set_target_norm(target_mean or mean, target_std or std)
        self.norms = ['', 'target_']  # prefixes of the buffers, a view each

    def set_target_norm(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Set the normalisation of the teacher's view.

        Args:
            mean: Three values, RGB, on the 0-255 scale.
            std: Three values, RGB, on the 0-255 scale.
        """
        self._set_norm('target_', mean, std)

    def add_view(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Make one more view of the crop, for one more teacher.

        Args:
            mean: Three values, RGB, on the 0-255 scale.
            std: Three values, RGB, on the 0-255 scale.
        """
        self.norms.append(f'view{len(self.norms)}_')
        self._set_norm(self.norms[-1], mean, std)

    def _set_norm(
        self, prefix: str, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        for name, value in ((f'{prefix}mean', mean), (f'{prefix}std', std)):
            if len(value) != 3:
                raise ValueError(f'{name} needs 3 values (R, G, B), got {value}.')
            value = torch.tensor(value, dtype=torch.float32).view(-1, 1, 1)
            self.register_buffer(name, value.to(self.mean.device), persistent=False)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Make both views.

        Args:
            data: ``inputs`` (B, 3, H, W) uint8 and ``data_samples``, as
                mmengine's ``default_collate`` gives them.
            training: Unused; both modes see the same.

        Returns:
            dict: ``inputs`` is the list [student's view, teacher's view] and
            then the added ones, each (B, 3, H, W) float32; ``data_samples`` is
            passed through.
        """
        images = self.cast_data(data['inputs'])
        if isinstance(images, (list, tuple)):  # pseudo_collate, as in inference
            images = torch.stack(list(images))
        if self._channel_conversion:
            images = images.flip(1)
        images = images.float()
        views = [
            (images - getattr(self, f'{norm}mean')) / getattr(self, f'{norm}std')
            for norm in self.norms
        ]
        return {'inputs': views, 'data_samples': data.get('data_samples')}
