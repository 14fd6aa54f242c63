"""One crop in, the student's view of it and one of each teacher out."""

from collections.abc import Sequence

import torch
from mmpretrain.models.utils import SelfSupDataPreprocessor
from mmpretrain.registry import MODELS

from mmdtm.models.batch_color_jitter import BatchColorJitter


@MODELS.register_module()
class DTMDataPreprocessor(SelfSupDataPreprocessor):
    """Normalise the same crop for the student and for each teacher.

    One uint8 crop travels to the device, where all views are made, and the masks as
    one tensor.

    Args:
        mean: The student's pixel mean, RGB, on the 0-255 scale.
        std: The student's pixel standard deviation, RGB, on the 0-255 scale.
        to_rgb: Whether the pipeline delivers BGR, as OpenMMLab's loaders do.
        target_mean: The first teacher's pixel mean. None, the default, takes
            the one that the teacher was trained with; the authors' release
            uses the student's instead (``configs/release``).
        target_std: Likewise the standard deviation.
        non_blocking: Whether the copy to the device may overlap computation.
        color_jitter: Jitter the crop here, in training: options of a
            :class:`BatchColorJitter`. The pipeline's own jitter must then be left out,
            with ``color_jitter=dict()`` of its ``JitteredResizedCrop``.

    Raises:
        ValueError: If only one of ``target_mean`` and ``target_std`` is given,
            or they are not three numbers.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        to_rgb: bool = True,
        target_mean: Sequence[float] | None = None,
        target_std: Sequence[float] | None = None,
        non_blocking: bool = True,
        color_jitter: dict | None = None,
    ) -> None:
        super().__init__(mean=mean, std=std, to_rgb=to_rgb, non_blocking=non_blocking)
        self.target_norm = None
        if target_mean is not None and target_std is not None:
            self.target_norm = (target_mean, target_std)
        elif target_mean is not None or target_std is not None:
            raise ValueError(
                f'DTMDataPreprocessor: target_mean is {target_mean} and target_std '
                f'{target_std}. Give both, or neither.'
            )
        self.num_views = 1  # the student's
        self.jitter = BatchColorJitter(**color_jitter) if color_jitter else None

    def add_view(self, mean: Sequence[float], std: Sequence[float]) -> int:
        """Make one more view of the crop, for a teacher.

        Args:
            mean: Three values, RGB, on the 0-255 scale; for the first teacher
                ``target_mean`` counts instead, if given.
            std: Likewise.

        Returns:
            The view's place in ``inputs``.
        """
        norm = (mean, std)
        if self.num_views == 1 and self.target_norm:
            norm = self.target_norm
        for name, values in zip(('mean', 'std'), norm, strict=True):
            if len(values) != 3:
                raise ValueError(
                    f'The {name} of view {self.num_views} is {values}. Give 3 values '
                    '(R, G, B).'
                )
            buffer = torch.tensor(values, dtype=torch.float32, device=self.mean.device)
            name = f'view{self.num_views}_{name}'
            self.register_buffer(name, buffer.view(-1, 1, 1), persistent=False)
        self.num_views += 1
        return self.num_views - 1

    def view_norm(self, view: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of a view, (3, 1, 1) each."""
        prefix = f'view{view}_' if view else ''  # the student's are the parent's
        return getattr(self, f'{prefix}mean'), getattr(self, f'{prefix}std')

    def forward(self, data: dict, training: bool = False) -> dict:
        """Make the views.

        Args:
            data: ``inputs`` (B, 3, H, W) uint8, ``data_samples`` and ``mask``
                (B, h, w), as ``masked_collate`` gives them. mmengine's
                collations leave the masks in the data samples, which will do.
            training: Whether to jitter the colours; all else is the same.

        Returns:
            ``inputs`` is the list of the student's view and then those added,
            (B, 3, H, W) float32 each; ``data_samples`` is passed through; ``mask``,
            bool (B, h, w), is there if the data have masks.
        """
        images = self.cast_data(data['inputs'])
        if isinstance(images, (list, tuple)):  # pseudo_collate, as in inference
            images = torch.stack(list(images))
        if self._channel_conversion:
            images = images.flip(1)
        images = images.float()
        if training and self.jitter:
            images = self.jitter(images)
        norms = [self.view_norm(view) for view in range(self.num_views)]
        views = [(images - mean) / std for mean, std in norms]
        samples, mask = data.get('data_samples'), data.get('mask')
        made = {'inputs': views, 'data_samples': samples}
        if mask is None and samples and 'mask' in samples[0]:
            mask = torch.stack([sample.mask for sample in samples])
        if mask is not None:
            made['mask'] = self.cast_data(mask).bool()
        return made
