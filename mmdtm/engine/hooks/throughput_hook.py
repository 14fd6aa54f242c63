"""How many images a run trains on per second."""

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

WINDOW = 10  # iterations, those over which mmengine's log averages ``time``


@HOOKS.register_module()
class ThroughputHook(Hook):
    """Log ``images_per_sec``, of all processes together, data loading included.

    Needs mmengine's ``IterTimerHook``, which every run has by default.
    """

    priority = 'NORMAL'  # after IterTimerHook, which comes first there

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        """Add the rate of the iterations that ``IterTimerHook`` has timed."""
        seconds = runner.message_hub.get_scalar('train/time').mean(WINDOW)
        images = runner.train_dataloader.batch_size * get_world_size()
        runner.message_hub.update_scalar('train/images_per_sec', images / seconds)
