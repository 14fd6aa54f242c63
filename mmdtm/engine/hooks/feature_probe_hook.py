"""k-NN and a short linear probe while a model is being pre-trained."""

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from torch.utils.data import DataLoader

from mmdtm.evaluation.feature_probe import probe_features
from mmdtm.evaluation.features import build_loader
from mmdtm.morphing.checks import check_count


@HOOKS.register_module()
class FeatureProbeHook(Hook):
    """Report how good the frozen features are, every few epochs.

    The values, and the seconds they cost, go to the log and to the visualizer
    (``probe/knn_top1``, ...). They show whether a run learns, long before it
    ends; they do not rank methods: masked models can be poor by k-NN and
    among the best when fine-tuned (docs/finetuning.md).

    Training is not touched: no gradient, the same mode and the same random
    state afterwards.

    Args:
        train_dataloader: Labelled images to learn from, with the pipeline of
            testing, not shuffled.
        val_dataloader: Labelled images to classify.
        interval: Epochs between two reports; the last epoch has one as well.
        images_per_class: Limit on the images to learn from; None takes all.
        **probe: ``k``, ``temperature``, ``l2`` and ``max_iter`` of
            :func:`~mmdtm.evaluation.feature_probe.probe_features`.

    Raises:
        ValueError: If ``interval`` or ``images_per_class`` is below 1.
    """

    priority = 'BELOW_NORMAL'

    def __init__(
        self,
        train_dataloader: dict,
        val_dataloader: dict,
        interval: int = 10,
        images_per_class: int | None = None,
        **probe,
    ) -> None:
        self.interval = check_count(interval, 1, None, 'interval')
        self.images_per_class = images_per_class
        self.probe = probe
        self.loader_cfgs = (train_dataloader, val_dataloader)

    def before_train(self, runner: Runner) -> None:
        """Build the loaders, so that missing data stop the run at its start."""
        train, val = self.loader_cfgs
        self.loaders: tuple[DataLoader, DataLoader] = (
            build_loader(train, self.images_per_class),
            build_loader(val),
        )

    def after_train_epoch(self, runner: Runner) -> None:
        """Probe and report."""
        last = runner.epoch + 1 == runner.max_epochs
        if not (last or self.every_n_epochs(runner, self.interval)):
            return
        model = runner.model
        model = model.module if is_model_wrapper(model) else model
        result = probe_features(model, *self.loaders, **self.probe)
        if not result:  # not the first process
            return
        seconds = sum(v for name, v in result.items() if name.endswith('_s'))
        runner.logger.info(
            f'Frozen features after epoch {runner.epoch + 1}: '
            f'k-NN {result["knn_top1"]:.2f} %, linear probe '
            f'{result["linear_top1"]:.2f} % (top-1); {seconds:.1f} s: features '
            f'{result["features_s"]:.1f}, k-NN {result["knn_s"]:.1f}, linear '
            f'{result["linear_s"]:.1f}.'
        )
        runner.visualizer.add_scalars(
            {f'probe/{name}': value for name, value in result.items()},
            step=runner.epoch + 1,
        )
