"""Layer-wise learning rate decay for any model whose backbone knows depths."""

from typing import Any

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as ROOT_CONSTRUCTORS
from mmpretrain.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

# Besides vectors (biases, norms, layer scales): tables and tokens that are
# added to activations or attention, rather than multiplied with them.
NO_DECAY_NAMES = (
    'relative_position_bias_table',
    'pos_embed',
    'cls_token',
    'mask_token',
    'reg_token',
    'dist_token',
)


# In mmengine's registry, where a config of any scope finds it without a prefix,
# and in mmpretrain's, for those who write mmpretrain. before mmdtm's types.
@ROOT_CONSTRUCTORS.register_module()
@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """A learning rate that falls with the distance from the head.

    A parameter at depth d (see ``get_layer_depth`` of the backbone) of a
    backbone of n layers has the rate lr * layer_decay_rate**(n + 1 - d):
    everything outside the backbone, at depth n + 1, has the full rate.

    Weight decay acts on weight matrices alone: not on biases, norms, layer
    scales, position tables, class and mask tokens.

    Parameters of equal rate and weight decay form one group of the optimizer.
    The groups are logged as a table.

    Give learning rate schedules a relative minimum (``eta_min_ratio``): an
    absolute ``eta_min`` is the same for all groups, and may lie above the
    rates of the lowest layers.

    Args:
        optim_wrapper_cfg: As mmengine's; its optimizer must state ``lr`` and
            ``weight_decay``.
        paramwise_cfg: ``dict(layer_decay_rate=...)``, in (0, 1].

    Raises:
        ValueError: If a key is missing or unknown, or a rate out of range; at the
            call, if the model has no ``backbone`` with ``get_layer_depth`` for a rate
            other than 1, or no trainable parameter.
    """

    def _validate_cfg(self) -> None:
        super()._validate_cfg()
        name = type(self).__name__
        if set(self.paramwise_cfg) != {'layer_decay_rate'}:
            raise ValueError(
                f'paramwise_cfg of {name} has {sorted(self.paramwise_cfg)}. Give it '
                'layer_decay_rate, and no other key.'
            )
        if not 0 < self.paramwise_cfg['layer_decay_rate'] <= 1:
            raise ValueError(
                f'layer_decay_rate is {self.paramwise_cfg["layer_decay_rate"]}. Give a '
                'factor above 0 and of at most 1 to paramwise_cfg.'
            )
        if self.base_lr is None or self.base_wd is None:
            raise ValueError(
                f'{name} scales lr and weight_decay, of which one is not in the '
                f"optimizer's config, {self.optimizer_cfg}. State both there."
            )

    def add_params(self, params: list[dict], module: nn.Module, **kwargs) -> None:
        """Append the parameter groups of the whole model to ``params``."""
        backbone: Any = getattr(module, 'backbone', None)
        rate = self.paramwise_cfg['layer_decay_rate']
        layered = hasattr(backbone, 'get_layer_depth')
        if rate != 1 and not layered:
            found = 'no backbone'
            if backbone is not None:
                found = f'the backbone {type(backbone).__name__} without it'
            raise ValueError(
                f'Layer-wise decay asks model.backbone.get_layer_depth, and '
                f'{type(module).__name__} has {found}. Use a backbone that has it, '
                'such as DTMViT, or another constructor.'
            )
        # By their share of the rate, and whether weight decay acts on them.
        groups: dict[tuple[float, bool], list[tuple[int, nn.Parameter]]] = {}
        for name, param in module.named_parameters():
            if param.requires_grad:
                depth, num_depths = (
                    backbone.get_layer_depth(name, 'backbone.') if layered else (0, 1)
                )
                decays = param.ndim > 1 and not name.endswith(NO_DECAY_NAMES)
                key = rate ** (num_depths - 1 - depth), decays
                groups.setdefault(key, []).append((depth, param))
        if not groups:
            raise ValueError(
                f'{type(module).__name__} has no trainable parameter. Freeze less.'
            )
        lines = [
            f'Layer-wise decay {rate}:',
            f'{"depth":>7} {"lr":>10} {"weight decay":>12} {"tensors":>8} '
            f'{"parameters":>12}',
        ]
        for scale, decays in sorted(groups):
            depths, tensors = zip(*groups[scale, decays], strict=True)
            lr, weight_decay = self.base_lr * scale, self.base_wd if decays else 0.0
            params.append(dict(params=[*tensors], lr=lr, weight_decay=weight_decay))
            span = '-'.join(map(str, sorted({min(depths), max(depths)})))
            count = sum(p.numel() for p in tensors)
            lines.append(
                f'{span:>7} {lr:>10.3e} {weight_decay:>12g} {len(tensors):>8} '
                f'{count:>12,}'
            )
        print_log('\n'.join(lines), logger='current')
