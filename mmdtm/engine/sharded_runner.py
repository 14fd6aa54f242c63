"""Several processes that share a model's parameters out among them (FSDP2)."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.dist import broadcast, get_rank, get_world_size
from mmengine.optim import OptimWrapper
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


# In mmengine's registry: no scope is set yet when a runner is built.
@RUNNERS.register_module()
class ShardedRunner(Runner):
    """A Runner whose processes share out the model: ``runner_type='ShardedRunner'``.

    Each process keeps its part of the student's parameters, gradients and
    optimizer's state (``torch.distributed.fsdp.fully_shard``), and has a layer whole
    only while it computes it. Steps are those of DDP up to rounding: gradients are
    averaged, their norm is that of the whole model, and parameters keep their names
    and shapes, which the weight decay goes by. A frozen teacher is not shared out.

    Checkpoints are those of any other Runner, so that a run goes on under DDP, with
    another number of processes or in one, and the other way round. With one process
    there is nothing to share out, and this is a Runner.

    ``sharding=dict(reshard_after_forward=False)`` in the config keeps a layer whole
    from its forward to its backward pass: more memory, one collection of its
    parameters less.

    Raises:
        ValueError: If the model is to be compiled.
    """

    def wrap_model(self, model_wrapper_cfg: dict | None, model: Any) -> nn.Module:
        """Initialise the model and share it out; there is no wrapper."""
        if not self.distributed:
            return super().wrap_model(model_wrapper_cfg, model)
        if self.cfg.model.get('compile'):
            raise ValueError(
                'compile is for a whole forward pass, which ShardedRunner interrupts '
                'at each layer. Remove compile, or runner_type, from the config.'
            )
        model = model.to(get_device())
        # Now, while tensors are whole; all processes must share out the same.
        model.init_weights()
        for tensor in model.state_dict().values():
            broadcast(tensor)
        return shard(model, **self.cfg.get('sharding', {}))

    def _init_model_weights(self) -> None:
        if not self.distributed:
            super()._init_model_weights()

    def build_optim_wrapper(self, optim_wrapper: Any) -> Any:
        """As the Runner's, whose optimizer can load whole tensors."""
        built = isinstance(optim_wrapper, OptimWrapper)
        optim_wrapper = super().build_optim_wrapper(optim_wrapper)
        if not built and self.distributed:
            optim_wrapper.optimizer.register_load_state_dict_pre_hook(
                distribute_moments
            )
        return optim_wrapper

    def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Collect the parts in all processes; the first one then writes."""
        if not self.distributed:
            return super().save_checkpoint(*args, **kwargs)
        keep = get_rank() == 0
        wrapper: Any = self.optim_wrapper
        model: Any = self.model
        optimizer = wrapper.optimizer
        weights = whole(model.state_dict(), keep)
        moments = whole(optimizer.state_dict(), keep)
        model.state_dict = lambda: weights
        optimizer.state_dict = lambda: moments
        try:
            super().save_checkpoint(*args, **kwargs)
        finally:
            del model.state_dict, optimizer.state_dict


def shard(model: nn.Module, reshard_after_forward: bool = True) -> nn.Module:
    """Share a model's parameters out among all processes, in place.

    Args:
        model: With a ``backbone``. Each layer of it is a unit of its own, see
            :func:`units`; all else that is trained is one more.
        reshard_after_forward: See :class:`ShardedRunner`.

    Returns:
        The model, whose parameters are ``DTensor``s.
    """
    options: dict[str, Any] = dict(
        mesh=init_device_mesh(get_device().split(':')[0], (get_world_size(),)),
        reshard_after_forward=reshard_after_forward,
    )
    backbone: Any = model.backbone
    for unit in units(backbone):
        fully_shard(unit, **options)
    fully_shard(model, **options)
    for module in model.modules():
        module.register_load_state_dict_pre_hook(distribute_weights)
    return model


def units(backbone: nn.Module) -> Iterator[nn.Module]:
    """The layers of a backbone, inner ones first: what its ModuleLists hold.

    timm keeps its ``blocks`` in a Sequential; they count, too.
    """
    for name, child in backbone.named_children():
        yield from units(child)
        if isinstance(child, nn.ModuleList) or (
            name == 'blocks' and isinstance(child, nn.Sequential)
        ):
            for layer in child:
                if any(True for _ in layer.parameters()):
                    yield layer


def whole(node: Any, keep: bool = True) -> Any:
    """A state dict whose shared-out tensors are whole, on the CPU.

    Args:
        node: The same in all processes, which must all call this.
        keep: Whether this process wants them.
    """
    if isinstance(node, DTensor):
        tensor = node.full_tensor()
        return tensor.cpu() if keep else None
    if isinstance(node, dict):
        parts = {key: whole(value, keep) for key, value in node.items()}
        if type(node) is dict:
            return parts
        copied = copy.copy(node)  # an OrderedDict with metadata
        copied.update(parts)
        return copied
    if isinstance(node, (list, tuple)):
        return type(node)(whole(value, keep) for value in node)
    return node


def part_of(tensor: Tensor, parameter: Tensor) -> Tensor:
    """This process's part of a whole tensor, as ``parameter`` is shared out."""
    if (
        not isinstance(parameter, DTensor)
        or isinstance(tensor, DTensor)
        or tensor.shape != parameter.shape
    ):
        return tensor
    return distribute_tensor(
        tensor.to(parameter.device),
        parameter.device_mesh,
        parameter.placements,
        src_data_rank=None,  # all have the same
    )


def distribute_weights(
    module: nn.Module, state_dict: dict, prefix: str, *args: Any
) -> None:
    """Load whole tensors: a hook before a module takes its own from a state dict."""
    for name, parameter in module.named_parameters(recurse=False):
        if prefix + name in state_dict:
            state_dict[prefix + name] = part_of(state_dict[prefix + name], parameter)


def distribute_moments(optimizer: torch.optim.Optimizer, state_dict: dict) -> dict:
    """Load whole tensors: a hook before an optimizer takes a state dict."""
    parameters = [p for group in optimizer.param_groups for p in group['params']]
    state = {
        number: {
            name: part_of(value, parameters[number])
            if isinstance(value, Tensor)
            else value
            for name, value in values.items()
        }
        for number, values in state_dict['state'].items()
    }
    return {**state_dict, 'state': state}
