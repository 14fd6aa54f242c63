"""Any Vision Transformer of timm, as a student and for what comes after it."""

import re
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from mmengine.logging import print_log
from mmengine.model import initialize
from mmengine.utils import to_2tuple
from mmpretrain.models.backbones.base_backbone import BaseBackbone
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from mmdtm.models.timm_models import create_timm, require_timm
from mmdtm.morphing.checks import check_option

from .loading import check_fits, load_start, take
from .masked import MaskToken
from .student import check_size, layer_indices


@MODELS.register_module()
class TimmViT(BaseBackbone):
    """A Vision Transformer of timm, by its name, for fine-tuning and dense prediction.

    timm's network and its forward, start values and names of parameters are as they
    are, below ``network``. Its classifier is left out, and so is its pooling where
    tokens are wanted. Whatever is loaded is resampled to this size of images and
    patches by timm, and refused if anything else differs.

    Args:
        model: timm's name, such as 'vit_small_patch16_224', 'deit3_base_patch16_224',
            'vit_base_patch16_rope_224' or 'vit_base_patch14_reg4_dinov2.lvd142m'.
        img_size: Height and width in pixels; the model's own by default.
        pretrained: Start from timm's weights: True takes them from the hub or its
            cache, a path is a local file. They are read in ``init_weights``.
        out_type: What each output is:

            - 'avg_featmap': (B, C), timm's mean over patch tokens, normalised after;
            - 'cls_token': (B, C), the class token, normalised;
            - 'featmap': (B, C, h, w), the patch tokens of each of ``out_indices``;
            - 'raw': (B, num_extra_tokens + h * w, C), all tokens, normalised.
        out_indices: Layers to output as 'featmap', from 0; negative ones count from the
            last.
        final_norm: Normalise the outputs of 'featmap', too.
        drop_path_rate: Drop path of the last layer.
        init_cfg: mmengine's initialisation config; comes after ``pretrained``.
        **options: Of ``timm.create_model``, such as ``patch_size=16``, ``reg_tokens=4``
            or ``dynamic_img_size=True`` for images of any size.

    Raises:
        ValueError: If timm has no such model, or it has no grid of patch tokens, drops
            tokens or does not take an option.
    """

    smoke: ClassVar[dict] = dict(
        pretrained=False, img_size=64, patch_size=16, embed_dim=48, depth=4, num_heads=3
    )
    POOLING: ClassVar[dict[str, dict]] = dict(
        raw={},
        featmap={},
        cls_token=dict(global_pool='token'),
        avg_featmap=dict(global_pool='avg'),
    )

    def __init__(
        self,
        model: str,
        img_size: int | tuple[int, int] | None = None,
        pretrained: bool | str = False,
        out_type: str = 'avg_featmap',
        out_indices: int | Sequence[int] = -1,
        final_norm: bool = False,
        drop_path_rate: float = 0.0,
        init_cfg: dict | list[dict] | None = None,
        **options,
    ) -> None:
        super().__init__(init_cfg)
        check_option(out_type, tuple(self.POOLING), 'out_type')
        self.model, self.pretrained, self.out_type = model, pretrained, out_type
        self.final_norm = final_norm
        self.options = dict(options, drop_path_rate=drop_path_rate)
        if img_size is not None:
            self.options['img_size'] = to_2tuple(img_size)
        self.network: Any = self._create(**self.POOLING[out_type])
        patches = self.network.patch_embed
        self.img_size = tuple(patches.img_size)
        self.patch_size = tuple(patches.patch_size)
        check_size(type(self).__name__, self.img_size, self.patch_size)
        self.patch_resolution = tuple(patches.grid_size)
        self.embed_dims = self.network.embed_dim
        self.num_extra_tokens = self.network.num_prefix_tokens
        self.num_layers = len(self.network.blocks)
        self.out_indices = layer_indices(out_indices, self.num_layers)
        if not self.POOLING[out_type]:
            self._leave_tokens()
        # After hooks of the network, and before it is asked what it lacks.
        self._register_load_state_dict_pre_hook(self._fit)

    @classmethod
    def require_weights(cls, options: Mapping[str, Any]) -> None:
        """Ask whether the weights to start from are there, see ``require_timm``."""
        require_timm(options['model'], options.get('pretrained', False))

    def _create(self, **options) -> Any:
        """Build timm's network, or give the reasons why it does not serve."""
        lacks = []
        try:
            network = create_timm(self.model, **self.options, **options)
        except (AssertionError, TypeError) as error:  # timm's, of what it is given
            lacks.append(f'it does not take what it is given ({error})')
        else:
            grid = getattr(getattr(network, 'patch_embed', None), 'grid_size', None)
            wanted = ('blocks', 'num_prefix_tokens')
            if grid is None or not all(hasattr(network, name) for name in wanted):
                lacks.append('it has no fixed grid of patch tokens')
            if not isinstance(
                getattr(network, 'patch_drop', None), (nn.Identity, type(None))
            ):
                lacks.append('it drops tokens in training (patch_drop_rate)')
        if lacks:
            raise ValueError(
                f"timm's {self.model} cannot be a backbone here: {'; '.join(lacks)}. "
                'Choose a plain ViT that keeps all its tokens, such as '
                'vit_small_patch16_224, and options that it has; Swin and ConvNeXt '
                'are MaskedSwinTransformer and MaskedConvNeXt.'
            )
        return network

    def _leave_tokens(self) -> None:
        """Leave out of the network what only pooled features go through."""
        network = self.network
        network.attn_pool = None
        # Networks that pool by the mean keep their final norm for what they pool.
        if isinstance(network.norm, nn.Identity):
            network.norm = getattr(network, 'fc_norm', network.norm)
        network.fc_norm = nn.Identity()
        if self.out_type == 'featmap' and not self.final_norm:
            network.norm = nn.Identity()

    def init_weights(self) -> None:
        """Load timm's weights if wanted, then apply ``init_cfg``.

        timm draws start values when it builds the network.

        Raises:
            FileNotFoundError: If the weights cannot be had.
            ValueError: If they, or the checkpoint of ``init_cfg``, are of another
                model.
        """
        if self.pretrained:
            # As timm has it, with its own pooling: so its file is read strictly.
            source = create_timm(self.model, self.pretrained, **self.options)
            weights = source.state_dict()
            for name in ('weight', 'bias'):
                pooled, tokens = f'fc_norm.{name}', f'norm.{name}'
                norm = weights.get(tokens, weights.get(pooled))
                weights.update({tokens: norm, pooled: norm})
            wanted = self.network.state_dict()
            lacking = sorted(wanted.keys() - weights.keys())
            if lacking:
                raise ValueError(
                    f"timm's weights of {self.model} lack {', '.join(lacking)}. Set "
                    'pretrained=False, or leave out the option that adds them.'
                )
            self.network.load_state_dict({name: weights[name] for name in wanted})
            print_log(f"{self.model}: starts from timm's weights.", logger='current')
        if self.init_cfg:
            load_start(self, partial(initialize, self, self.init_cfg))
        self._is_init = True

    def _fit(self, state_dict: dict, prefix: str, *args) -> None:
        """Let timm resample what is loaded, and check that it is all there."""
        prefix += 'network.'
        given = take(state_dict, prefix)
        module = sys.modules[type(self.network).__module__]
        resample = getattr(module, 'checkpoint_filter_fn', lambda state, _: state)
        given = resample(given, self.network) if given else {}
        state_dict.update({prefix + name: value for name, value in given.items()})
        # Norms of tokens or of pooled features: one use of the backbone has one.
        check_fits(self.network, state_dict, prefix, fresh=('fc_norm.', 'norm.'))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Features of images (B, 3, H, W), as ``out_type`` says."""
        if self.out_type == 'featmap':
            outputs = self.network.forward_intermediates(
                x, self.out_indices, norm=self.final_norm, intermediates_only=True
            )
            return tuple(outputs)
        tokens = self.network.forward_features(x)
        if self.out_type == 'raw':
            return (tokens,)
        return (self.network.forward_head(tokens, pre_logits=True),)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter, for layer-wise learning rate decay.

        Args:
            param_name: Name of the parameter in the whole model.
            prefix: The backbone's own part of that name.

        Returns:
            The depth, and the number of depths, ``num_layers + 2``: all that comes
            before the blocks is at 0, block i (from 0) at i + 1, all else at the last.
        """
        last = self.num_layers + 1
        name = param_name.removeprefix(prefix).removeprefix('network.')
        block = re.match(r'blocks\.(\d+)\.', name)
        if not param_name.startswith(prefix):
            depth = last
        elif block:
            depth = int(block[1]) + 1
        elif re.match(r'(norm|fc_norm|rel_pos_bias)\.', name):
            depth = last
        else:
            depth = 0
        return depth, last + 1


@MODELS.register_module()
class MaskedTimmViT(MaskToken, TimmViT):
    """A Vision Transformer of timm as a student; arguments as TimmViT's.

    Class and register tokens come first in its output (``num_extra_tokens``).
    """

    channels_last = True

    def __init__(self, model: str, *, out_type: str = 'raw', **options) -> None:
        super().__init__(model, out_type=out_type, **options)
        self.add_mask_token(self.embed_dims, self.network.patch_embed)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        with self.masking(mask, len(x), self.network.patch_embed):
            return super().forward(x)
