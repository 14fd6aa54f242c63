"""What pre-training leaves behind: the backbone."""

import inspect

import torch
from mmpretrain.models.selfsup import BaseSelfSupervisor
from mmpretrain.registry import MODELS

from .branch import first_view


@MODELS.register_module()
class PretrainedBackbone(BaseSelfSupervisor):
    """A pre-trained backbone without teacher, head and loss, for inference.

    Of a checkpoint the backbone alone is loaded. mmdtm's names in mmpretrain's
    ``get_model`` and inferencers give this for a pre-training.

    Args:
        backbone: Config of any of the pre-trainings' backbones.
        data_preprocessor: Config of a preprocessor that gives one view.
        init_cfg: As in mmengine.
    """

    def __init__(
        self,
        backbone: dict,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(
            backbone=backbone, data_preprocessor=data_preprocessor, init_cfg=init_cfg
        )
        self.masks = 'mask' in inspect.signature(self.backbone.forward).parameters
        self._register_load_state_dict_pre_hook(_keep_backbone)

    def extract_feat(self, inputs: torch.Tensor | list) -> tuple[torch.Tensor, ...]:
        """Features of unmasked images.

        Args:
            inputs: (B, 3, H, W), normalised; or a list of views, of which the first
                counts.

        Returns:
            One tensor per output stage of the backbone: of a ``DTMPretrainViT``
            (B, 1 + N, C), the class token and then the patch tokens.
        """
        options = dict(mask=None) if self.masks else {}
        return self.backbone(first_view(inputs), **options)

    def loss(self, inputs: torch.Tensor, data_samples: list) -> dict:
        """Not for training.

        Raises:
            RuntimeError: Always.
        """
        raise RuntimeError(
            'PretrainedBackbone has no teacher and no loss. Train with the config of '
            'the pre-training itself.'
        )


def _keep_backbone(state_dict: dict, prefix: str, *args) -> None:
    for name in list(state_dict):
        if name.startswith(prefix) and not name.startswith(f'{prefix}backbone.'):
            del state_dict[name]
