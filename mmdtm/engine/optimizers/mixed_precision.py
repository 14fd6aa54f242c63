"""Mixed precision in what the device is good at."""

from contextlib import contextmanager

import torch
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmpretrain.registry import OPTIM_WRAPPERS
from torch import nn
from torch.distributed.tensor import DTensor


@OPTIM_WRAPPERS.register_module()
class MixedPrecisionOptimWrapper(AmpOptimWrapper):
    """Autocast to a precision chosen once, and clipping without a wait.

    Unlike mmengine's ``AmpOptimWrapper`` it runs on every device, scales the loss
    where that is of use, in float16, and leaves the gradients' norm on the device:
    the message hub gets it as a tensor.

    Args:
        dtype: ``'auto'`` is bfloat16 on a GPU that has it, float16 on another, and
            float32, which is no autocast, without one. Or one of these names.
        loss_scale: For float16: ``'dynamic'``, a fixed scale, or options of torch's
            ``GradScaler``.
        **kwargs: Of ``OptimWrapper``.

    Raises:
        ValueError: If ``dtype`` is unknown, or not for this device.
    """

    def __init__(
        self, dtype: str = 'auto', loss_scale: str | float | dict = 'dynamic', **kwargs
    ) -> None:
        OptimWrapper.__init__(self, **kwargs)
        device = get_device()
        name = best_precision(device) if dtype == 'auto' else dtype
        check_precision(name, device)
        self.cast_dtype = None if name == 'float32' else getattr(torch, name)
        self._scale_update_param = loss_scale if isinstance(loss_scale, float) else None
        options = loss_scale if isinstance(loss_scale, dict) else {}
        if isinstance(loss_scale, float):
            options = dict(init_scale=loss_scale)
        scaled = name == 'float16'
        options = dict(options, enabled=scaled)
        self.loss_scaler = torch.amp.GradScaler(device.split(':')[0], **options)
        how = f'loss scaled {loss_scale}' if scaled else 'loss not scaled'
        print_log(f'Precision: {name} on {device}, {how}.', logger='current')

    @contextmanager
    def optim_context(self, model: nn.Module):
        """Autocast, unless the precision is float32."""
        parent = OptimWrapper if self.cast_dtype is None else AmpOptimWrapper
        with parent.optim_context(self, model):
            yield

    def _clip_grad(self) -> None:
        parameters = [
            parameter
            for group in self.optimizer.param_groups
            for parameter in group['params']
            if parameter.requires_grad and parameter.grad is not None
        ]
        if parameters:
            norm = self.clip_func(parameters, **self.clip_grad_kwargs)
            if isinstance(norm, DTensor):  # of a model that processes share
                norm = norm.full_tensor()
            if norm is not None:  # clip_grad_value_ has none
                self.message_hub.update_scalar(f'train/{self.grad_name}', norm)

    def state_dict(self) -> dict:
        """The optimizer's, and the loss scaler's if there is one."""
        state = super().state_dict()
        if not self.loss_scaler.is_enabled():
            del state['loss_scaler']
        return state

    def load_state_dict(self, state_dict: dict) -> None:
        """Load either's; what the optimizer runs on (``fused``) stays as it is."""
        for group in state_dict['param_groups']:
            for name in ('fused', 'foreach'):
                if name in self.optimizer.defaults:
                    group[name] = self.optimizer.defaults[name]
        if not self.loss_scaler.is_enabled():
            state_dict.pop('loss_scaler', None)
        super().load_state_dict(state_dict)


def best_precision(device: str) -> str:
    """The precision for a device: ``'bfloat16'``, ``'float16'`` or ``'float32'``."""
    if not device.startswith('cuda'):
        return 'float32'
    has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return 'bfloat16' if has_bfloat16 else 'float16'


def check_precision(name: str, device: str) -> None:
    """Refuse a precision that the device does not have.

    Raises:
        ValueError: Names those that it has.
    """
    allowed = ['float32', 'bfloat16']
    if device.startswith('cuda'):
        allowed = ['float32', 'float16']
        if torch.cuda.is_bf16_supported():
            allowed.append('bfloat16')
    if name not in allowed:
        raise ValueError(
            f'optim_wrapper.dtype is {name!r}, which {device} does not train in. Take '
            f"'auto' or one of {', '.join(allowed)}."
        )
