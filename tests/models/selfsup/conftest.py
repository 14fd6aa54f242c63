"""The other frameworks, small: 64-pixel images, a 4 x 4 grid, width 48."""

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.runner.checkpoint import get_state_dict
from tiny import ARCH

from mmdtm.models.target_generators.frozen import FrozenTower

SCALE = 0.5  # layer scale: far from the start, so that no branch is hidden


@pytest.fixture
def mae_cfg(dtm_cfg, dtm_part) -> dict:
    return dict(
        type='MAEDTM',
        data_preprocessor=dtm_cfg['data_preprocessor'],
        dtm=dtm_part,
        backbone=dict(type='MAEViT', arch=ARCH, img_size=64, mask_ratio=0.75),
        neck=dict(
            type='MAEPretrainDecoder',
            num_patches=16,
            embed_dim=48,
            decoder_embed_dim=36,
            decoder_depth=1,
            decoder_num_heads=3,
        ),
    )


@pytest.fixture
def dtm_part(dtm_cfg) -> dict:
    """What DTM adds to MAE and BEiT v2; BYOL's has no teacher."""
    keys = ('target_generator', 'morphing', 'head')
    return {key: dtm_cfg[key] for key in keys}


@pytest.fixture
def beit_cfg(dtm_cfg) -> dict:
    return dict(
        type='BEiTv2DTM',
        data_preprocessor=dtm_cfg['data_preprocessor'],
        backbone=dict(
            type='BEiTPretrainViT',
            arch=ARCH,
            img_size=64,
            out_indices=[0, 1],
            final_norm=False,
            layer_scale_init_value=SCALE,
            init_cfg=dict(type='TruncNormal', std=0.02, layer='Linear'),
        ),
        neck=dict(
            type='BEiTV2Neck',
            num_layers=1,
            early_layers=1,
            backbone_arch=dict(ARCH, depth=2),
            layer_scale_init_value=SCALE,
        ),
        head=dict(
            type='BEiTV2Head',
            embed_dims=48,
            num_embed=32,
            loss=dict(type='CrossEntropyLoss'),
        ),
        target_generator=dict(
            type='VQKDGenerator',
            arch=ARCH,
            img_size=64,
            num_embed=32,
            embed_dims=8,
            random_weights=True,
        ),
    )


@pytest.fixture
def byol_cfg(dtm_cfg) -> dict:
    neck = dict(
        type='NonLinearNeck',
        hid_channels=40,
        out_channels=16,
        with_bias=True,
        with_last_bn=False,
        with_avg_pool=False,
        norm_cfg=dict(type='BN1d'),
    )
    return dict(
        type='BYOLDTM',
        data_preprocessor=dict(
            type='SelfSupDataPreprocessor', mean=[124] * 3, std=[58] * 3, to_rgb=True
        ),
        backbone=dict(type='VisionTransformer', arch=ARCH, img_size=64, out_type='raw'),
        neck=dict(neck, in_channels=48),
        head=dict(
            type='LatentPredictHead',
            predictor=dict(neck, in_channels=16),
            loss=dict(type='CosineSimilarityLoss'),
        ),
    )


@pytest.fixture
def max_iters():
    """How long a training is, which BYOL's momentum wants to know."""
    MessageHub.get_current_instance().update_info('max_iters', 10)


@pytest.fixture
def views():
    """Make two views of four images, normalised."""

    def make_views(seed: int = 0) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return [torch.randn(4, 3, 64, 64, generator=generator) for _ in range(2)]

    return make_views


@pytest.fixture
def check_gradients():
    """Check that all that trains gets a gradient, and that a teacher never trains."""

    def check(model: torch.nn.Module, losses: dict) -> None:
        loss, _ = model.parse_losses(losses)
        loss.backward()
        for name, p in model.named_parameters():
            if p.requires_grad:
                assert p.grad is not None and p.grad.abs().sum() > 0, name
            else:
                assert p.grad is None, name
        optimized = set(map(id, model.parameters()))
        for prefix, tower in model.named_modules():
            if not isinstance(tower, FrozenTower):
                continue
            assert not any(module.training for module in tower.teacher.modules())
            for p in tower.teacher.parameters():
                assert p.grad is None and not p.requires_grad
                assert id(p) not in optimized
            for state_dict in (model.state_dict(), get_state_dict(model)):
                assert state_dict and not [k for k in state_dict if prefix in k]

    return check
