"""How many images a run trains on per second."""

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS


@HOOKS.register_module()
class ThroughputHook(Hook):
    """Log ``images_per_sec``, of all processes together, data loading included.

    Needs mmengine's ``IterTimerHook``, which every run has by default.

    Args:
        window: Over how many of the last iterations the rate is taken; by default
            those over which mmengine's log averages ``time``.
    """

    priority = 'NORMAL'  # after IterTimerHook, which comes first there

    def __init__(self, window: int = 10) -> None:
        self.window = window

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        """Add the rate of the iterations that ``IterTimerHook`` has timed."""
        seconds = runner.message_hub.get_scalar('train/time').mean(self.window)
        images = runner.train_dataloader.batch_size * get_world_size()
        runner.message_hub.update_scalar('train/images_per_sec', images / seconds)
