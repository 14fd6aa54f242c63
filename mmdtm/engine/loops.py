"""Training loops whose runs, broken off and resumed, go on as if never broken off."""

from collections.abc import Iterator, Sequence

import torch
from mmengine.dist import all_reduce, gather, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict
from mmengine.registry import LOOPS
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from .draws import SeededDataset, SeededSampler, seed_generators
from .sharded_runner import part_of

# Why a changed run does not go on to the bit.
CHANGED = dict(
    total_batch_size='the order of the data and the draws of its transforms go on, but '
    'steps, and the schedule of the learning rate, mean other numbers of samples. To '
    'go on exactly, keep processes x batch_size.',
    processes='the order of the data and the draws of its transforms go on, and the '
    'groups of a morphing with share_across_ranks; what else a step draws (drop path, '
    'mixup, other masks and groups) is drawn by each process, and is new.',
    images='the epoch is gone on with from the same place in another order. To go on '
    'exactly, use the same data.',
)


class ExactLoop(BaseLoop):
    """What both loops add to mmengine's.

    - What a sample's transforms draw is a function of (seed, epoch, index), see
      :class:`~mmdtm.engine.draws.SeededSampler`.
    - What is drawn during a training step (drop path, mixup, MAE's masks) is a
      function of (seed, step, rank). So there is no generator's state to save.
    - A checkpoint says how many samples of the epoch were seen, and a resumed run
      reads on from there; nothing is read again.
    - A checkpoint in the midst of accumulating gradients holds them, of each
      process.
    - A validation that was due when the checkpoint was written comes first.
    """

    def __init__(self, runner: Runner, dataloader: dict) -> None:
        if not isinstance(dataloader, dict):
            raise TypeError(
                f'{type(self).__name__} builds its own loader, and was given a '
                f"{type(dataloader).__name__}. Give a config, or use mmengine's loop."
            )
        dataset = dict(
            type=SeededDataset,
            dataset=dataloader['dataset'],
            num_workers=dataloader.get('num_workers') or 0,
        )
        sampler = dict(type=SeededSampler, sampler=dataloader['sampler'])
        super().__init__(runner, {**dataloader, 'dataset': dataset, 'sampler': sampler})
        # Where reading began: the data's epoch, the samples of all processes that
        # had been seen of it, the step.
        self.data_epoch = self._seen = self._first_iter = 0
        runner.register_hook(_ResumeHook(), priority='LOWEST')

    @property
    def sampler(self) -> SeededSampler:
        """The sampler, also where another one makes batches of its indices."""
        return self.dataloader.batch_sampler.sampler

    @property
    def total_batch_size(self) -> int:
        """Samples that all processes together see in a step."""
        return self.dataloader.batch_sampler.batch_size * get_world_size()

    @property
    def shape(self) -> dict[str, int]:
        """What a run may change, and then does not go on exactly."""
        return dict(
            total_batch_size=self.total_batch_size,
            processes=get_world_size(),
            images=len(self.dataloader.dataset),
        )

    @property
    def seed(self) -> int:
        """The run's, of which ``diff_rank_seed`` makes one for each rank."""
        own = self.runner._randomness_cfg.get('diff_rank_seed', False)
        return self.runner.seed - get_rank() * own

    def seed_step(self) -> None:
        """Let what comes next depend on the seed, the step and the rank alone."""
        seed_generators(self.seed, 'step', self._iter, get_rank(), devices=True)

    def begin(self, epoch: int) -> int:
        """Go to the first sample of an epoch that was not seen.

        Returns:
            int: The batches that were seen.
        """
        if epoch != self.data_epoch:
            self.data_epoch, self._seen = epoch, 0
        self._first_iter = self._iter
        self.sampler.set_epoch(epoch)
        self.sampler.start = self._seen // get_world_size()
        return self._seen // self.total_batch_size

    def position(self, epoch: int, iter: int) -> dict:
        """Where a checkpoint with these numbers lies in the data."""
        return dict(
            epoch=self.data_epoch,
            samples=self._seen + (iter - self._first_iter) * self.total_batch_size,
            **self.shape,
        )

    def restore(self, position: dict | None) -> None:
        """Take up a checkpoint's place in the data.

        Args:
            position: As saved; None for a checkpoint without, of another loop,
                which is taken to have been made with the same batch size.
        """
        self.sampler.seed = self.seed
        if not self._iter:
            return
        if position is None:
            steps = self._iter - self._epoch * len(self.dataloader)
            samples = steps * self.total_batch_size
            position = dict(
                self.shape, epoch=self._epoch, samples=samples, validated=True
            )
        self.data_epoch, self._seen = position['epoch'], position['samples']
        self.runner.logger.info(
            f'Goes on after {self._seen} samples of epoch {self.data_epoch + 1} of the '
            'data.'
        )
        for name, value in self.shape.items():
            if value != position[name]:
                self.runner.logger.warning(
                    f'The checkpoint was saved with {name}={position[name]}, and this '
                    f'run has {value}: {CHANGED[name]}'
                )
        if not position['validated'] and self.validation_is_due():
            self.runner.val_loop.run()

    def validation_is_due(self) -> bool:
        """Whether mmengine's loop validates at this moment of the training."""
        raise NotImplementedError


@LOOPS.register_module()
class ExactEpochBasedTrainLoop(EpochBasedTrainLoop, ExactLoop):
    """mmengine's ``EpochBasedTrainLoop``, resumed to the bit; see :class:`ExactLoop`.

    Args:
        **kwargs: Those of mmengine's.
    """

    def run_epoch(self) -> None:
        """Train on what was not yet seen of the epoch."""
        self.seed_step()
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        for idx, batch in enumerate(self.dataloader, self.begin(self._epoch)):
            self.run_iter(idx, batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def run_iter(self, idx: int, data_batch: Sequence[dict]) -> None:
        """Train one step."""
        self.seed_step()
        super().run_iter(idx, data_batch)

    def position(self, epoch: int, iter: int) -> dict:
        """Where a checkpoint with these numbers lies in the data."""
        position = super().position(epoch, iter)
        # Before the validation, epoch is already the next one's number.
        position['validated'] = epoch == self._epoch
        if epoch > self.data_epoch:
            position.update(epoch=epoch, samples=0)
        return position

    def validation_is_due(self) -> bool:
        """Whether an epoch has just ended after which there is a validation."""
        self._decide_current_val_interval()
        return (
            self.runner.val_loop is not None
            and not self._seen
            and self._epoch >= self.val_begin
            and (
                self._epoch % self.val_interval == 0 or self._epoch == self._max_epochs
            )
        )


@LOOPS.register_module()
class ExactIterBasedTrainLoop(IterBasedTrainLoop, ExactLoop):
    """mmengine's ``IterBasedTrainLoop``, resumed to the bit; see :class:`ExactLoop`.

    Args:
        **kwargs: Those of mmengine's.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        del self.dataloader_iterator  # 0.10.7's reads from the start already

    def run(self) -> nn.Module:
        """Train until the last iteration."""
        runner = self.runner
        runner.call_hook('before_train')
        self.seed_step()
        runner.call_hook('before_train_epoch')
        batches = self._batches()
        while self._iter < self._max_iters and not self.stop_training:
            runner.model.train()
            self.run_iter(next(batches))
            self._decide_current_val_interval()
            if self.validation_is_due():
                runner.val_loop.run()
        runner.call_hook('after_train_epoch')
        runner.call_hook('after_train')
        return runner.model

    def run_iter(self, data_batch: Sequence[dict]) -> None:
        """Train one step."""
        self.seed_step()
        super().run_iter(data_batch)

    def _batches(self) -> Iterator[Sequence[dict]]:
        """Without end, also of a sampler that has one."""
        while True:
            self.begin(self.data_epoch)
            started_new = not self._seen
            yield from self.dataloader
            if started_new and self._iter == self._first_iter:
                raise ValueError(
                    f'{len(self.dataloader.dataset)} samples make no batch of '
                    f'{self.total_batch_size}. Lower the batch size, or set drop_last '
                    'of the train_dataloader to False.'
                )
            self.data_epoch, self._seen = self.data_epoch + 1, 0

    def position(self, epoch: int, iter: int) -> dict:
        """Where a checkpoint with these numbers lies in the data."""
        return super().position(epoch, iter) | dict(validated=iter == self._iter)

    def validation_is_due(self) -> bool:
        """Whether an iteration has just ended after which there is a validation."""
        return (
            self.runner.val_loop is not None
            and self._iter >= self.val_begin
            and (self._iter % self.val_interval == 0 or self._iter == self._max_iters)
        )


class _ResumeHook(Hook):
    """Puts the state of an :class:`ExactLoop` into checkpoints, and takes it out."""

    def __init__(self) -> None:
        self.position: dict | None = None
        self.saved_gradients: list[dict[str, Tensor]] | None = None
        self.gradients: list[dict[str, Tensor]] | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep what a resumed loop needs."""
        self.position = checkpoint.get('position')
        self.saved_gradients = checkpoint.pop('accumulated_gradients', None)

    def before_train(self, runner: Runner) -> None:
        """Resume, after all other hooks are ready for it."""
        loop = runner.train_loop
        if loop.iter and self.saved_gradients:
            set_gradients(runner.model, self.saved_gradients)
            runner.logger.info('The accumulated gradients are those of the checkpoint.')
        loop.restore(self.position)
        self.saved_gradients = None

    def before_val(self, runner: Runner) -> None:
        """Let a validation depend on nothing but the step, as training does."""
        runner.train_loop.seed_step()

    def before_checkpoint(self, runner: Runner) -> None:
        """Gather, in all processes, what only the first one will save."""
        wrapper = runner.optim_wrapper
        wrappers = (
            wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
        )
        if not all(w.should_update() for w in wrappers):
            self.gradients = gather_gradients(runner.model)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the place in the data, and gradients that no step has used."""
        meta = checkpoint['meta']
        checkpoint['position'] = runner.train_loop.position(meta['epoch'], meta['iter'])
        if self.gradients:
            checkpoint['accumulated_gradients'] = self.gradients
        self.gradients = None


def _parameters(model) -> dict[str, nn.Parameter]:
    """Of the model that may be wrapped, by its own names."""
    model = model.module if is_model_wrapper(model) else model
    return dict(model.named_parameters())


def gather_gradients(model: nn.Module) -> list[dict[str, Tensor]]:
    """Gradients by parameter of each process, on the CPU of the first."""
    parameters = _parameters(model)
    device = next(iter(parameters.values())).device
    somewhere = torch.tensor([p.grad is not None for p in parameters.values()])
    somewhere = somewhere.int().to(device)
    all_reduce(somewhere, 'max')
    gathered: list[dict[str, Tensor]] = [{} for _ in range(get_world_size())]
    for (name, p), there in zip(parameters.items(), somewhere.tolist(), strict=True):
        if there:
            gradient = torch.zeros_like(p) if p.grad is None else p.grad
            if isinstance(gradient, DTensor):  # the mean already, shared out
                parts = [gradient.full_tensor()] * get_world_size()
            else:
                parts = gather(gradient)
            for of_rank, tensor in zip(gathered, parts, strict=False):
                of_rank[name] = tensor.cpu()
    return gathered


def set_gradients(model: nn.Module, gathered: list[dict[str, Tensor]]) -> None:
    """Give each process its own gradients, or the mean.

    The mean is for another number of processes, and for those that share the model.
    """
    parameters = _parameters(model)
    shared_out = any(isinstance(p, DTensor) for p in parameters.values())
    if len(gathered) == get_world_size() and not shared_out:
        own = gathered[get_rank()]
    else:
        own = {k: sum(g[k] for g in gathered) / len(gathered) for k in gathered[0]}
    for name, parameter in parameters.items():
        if name in own:
            gradient = own[name].to(parameter.device, parameter.dtype).clone()
            parameter.grad = part_of(gradient, parameter)
