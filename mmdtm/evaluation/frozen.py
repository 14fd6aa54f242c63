"""A checkpoint's backbone, frozen, with the preprocessor of a classification config."""

from pathlib import Path

from mmengine.config import ConfigDict
from mmengine.runner import CheckpointLoader, load_state_dict
from mmpretrain.registry import MODELS
from torch import nn

from mmdtm.io.checkpoints import under
from mmdtm.models.backbones.loading import check_upstream


class FrozenBackbone(nn.Module):
    """The parts of a classifier that make features."""

    def __init__(self, cfg: ConfigDict) -> None:
        super().__init__()
        # mmpretrain's own configs have it beside the model.
        preprocessor = cfg.model.get('data_preprocessor') or cfg.data_preprocessor
        self.data_preprocessor = MODELS.build(
            dict(type='ClsDataPreprocessor') | preprocessor
        )
        self.backbone = MODELS.build(cfg.model.backbone | dict(init_cfg=None))


def load_backbone(backbone: nn.Module, checkpoint: str) -> None:
    """Load the backbone of a checkpoint, or a checkpoint that is a bare one.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If it does not fit the backbone.
    """
    if '://' not in checkpoint and not Path(checkpoint).is_file():
        raise FileNotFoundError(
            f'{checkpoint}: no such checkpoint. Training writes them to '
            'work_dirs/<config name>/.'
        )
    state = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
    state = state.get('state_dict', state)
    check_upstream(backbone)
    try:
        load_state_dict(backbone, under(state, 'backbone.') or dict(state))
    except ValueError as error:
        raise ValueError(f'{checkpoint}: {error}') from error
