"""Wrong data found before the first step."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from mmdtm.datasets import checks


@HOOKS.register_module()
class DataCheckHook(Hook):
    """Compare data sets, model and checkpoint before a run starts.

    - All splits have the same classes in the same order.
    - The model has as many outputs as the data have classes.
    - A checkpoint to test was trained on the classes of the test data.

    Raises:
        ValueError: If they do not fit; names the way out.
    """

    priority = 'VERY_HIGH'

    def before_run(self, runner: Runner) -> None:
        """Check the data sets that this run has built."""
        datasets = []
        for split in ('train', 'val', 'test'):
            loop = getattr(runner, f'_{split}_loop')
            if not hasattr(loop, 'dataloader'):  # not of this run
                continue
            dataset = loop.dataloader.dataset
            check_num_classes(runner.model, dataset)
            datasets.append(dataset)
        for dataset in datasets[1:]:
            checks.check_same_classes(datasets[0], dataset)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare the classes a checkpoint was trained on with those of the data."""
        trained = (checkpoint.get('meta', {}).get('dataset_meta') or {}).get('classes')
        if not trained or not hasattr(runner._test_loop, 'dataloader'):
            return
        dataset = runner._test_loop.dataloader.dataset
        classes = dataset.metainfo.get('classes')
        if classes and list(classes) != list(trained):
            raise ValueError(
                'The checkpoint was trained on other classes than those of '
                f'{checks.place(dataset)}: {checks.difference(trained, classes)} Test '
                "on that data's counterpart, or set its classes to the training's."
            )


def check_num_classes(model: Any, dataset: Any) -> None:
    """Raise if a part of the model counts other classes than the data have.

    Raises:
        ValueError: If it does; names the parts and the options to set.
    """
    model = model.module if is_model_wrapper(model) else model
    classes = dataset.metainfo.get('classes')
    if not classes:
        return
    counts = {
        name: module.num_classes
        for name, module in model.named_children()
        if isinstance(getattr(module, 'num_classes', None), int)
    }
    wrong = {name: count for name, count in counts.items() if count != len(classes)}
    if wrong:
        options = ' '.join(f'model.{name}.num_classes={len(classes)}' for name in wrong)
        raise ValueError(
            f'The data in {checks.place(dataset)} have {len(classes)} classes, and '
            f'{", ".join(f"model.{name} {count}" for name, count in wrong.items())}. '
            f'Set {options}.'
        )
