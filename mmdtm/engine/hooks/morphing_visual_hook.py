"""Images of block masks and morphed groups while pre-training runs."""

from typing import Any

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from mmdtm.morphing.checks import check_count, check_option
from mmdtm.visualization import FILLS, denormalize, morphing_sheet, render


@HOOKS.register_module()
class MorphingVisualHook(Hook):
    """Draw some of the current batch's images, their masks and their groups.

    The image goes to all backends of the visualizer: as ``morphing_STEP.png`` under
    ``vis_data/vis_image`` with the local one, under Images in TensorBoard. The groups
    are those of the schedule that comes next. Nothing about the training changes:
    the morphing's step and torch's random state stay where they are.

    Args:
        interval: Iterations between two images.
        num_images: How many of the batch's first images are drawn.
        fill: ``'palette'`` or ``'mean'``, see ``mmdtm.visualization.draw_groups``.
        side: Pixels of each image's side.

    Raises:
        ValueError: If a number is below 1 or ``fill`` is unknown; when training
            starts, if the model has no ``target_generator`` or ``morphing``.
    """

    priority = 'VERY_LOW'

    def __init__(
        self,
        interval: int = 500,
        num_images: int = 4,
        fill: str = 'palette',
        side: int = 224,
    ) -> None:
        check_option(fill, FILLS, 'fill')
        self.fill = fill
        self.interval = check_count(interval, 1, None, 'interval')
        self.num_images = check_count(num_images, 1, None, 'num_images')
        self.side = check_count(side, 1, None, 'side')

    def before_train(self, runner: Runner) -> None:
        """Refuse a model without target tokens before hours have passed."""
        model = _dtm_part(_unwrapped(runner))
        for part in ('target_generator', 'morphing'):
            if not hasattr(model, part):
                raise ValueError(
                    'MorphingVisualHook draws the groups of target tokens, and '
                    f'{type(model).__name__} has no {part}. Use it with DTM, or '
                    'remove it from custom_hooks.'
                )

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Draw every ``interval`` iterations, in the main process alone."""
        if self.every_n_train_iters(runner, self.interval) and is_main_process():
            runner.visualizer.add_image(
                'morphing', self.draw(_unwrapped(runner), data_batch), runner.iter + 1
            )

    @torch.no_grad()
    def draw(self, model: Any, data_batch: dict) -> np.ndarray:
        """Draw the first images of a batch.

        Args:
            model: A ``DTM``, or a framework with a ``DTMBranch``.
            data_batch: As the dataloader gives it.

        Returns:
            uint8 (H, W, 3), RGB.
        """
        preprocessor, part = model.data_preprocessor, _dtm_part(model)
        morphing = part.morphing
        data = preprocessor(data_batch, True)
        place = part.target_generator.view
        view = data['inputs'][place][: self.num_images]
        training = morphing is not None and morphing.training
        devices = [view.device] if view.is_cuda else []
        with torch.random.fork_rng(devices=devices):
            if training:
                morphing.eval()
            try:
                _, assignments = part.target_generator.targets(view, morphing)
            finally:
                if training:
                    morphing.train()
        masks = None
        if 'mask' in data:
            masks = data['mask'][: self.num_images].numpy(force=True)
        images = denormalize(
            view,
            *(norm.flatten().tolist() for norm in preprocessor.view_norm(place)),
        )
        grid = part.target_generator.grid_size
        page = morphing_sheet(images, masks, assignments, grid, self.fill, self.side)
        return render(page)


def _unwrapped(runner: Runner) -> Any:
    model = runner.model
    return model.module if is_model_wrapper(model) else model


def _dtm_part(model: Any) -> Any:
    """What has teacher and morphing: DTM itself, or another framework's branch."""
    return getattr(model, 'dtm', None) or model
