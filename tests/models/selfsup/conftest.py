"""The other frameworks, small: 64-pixel images, a 4 x 4 grid, width 48."""

import pytest
import torch
from mmengine.logging import MessageHub
from tiny import ARCH

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
def distil_cfg(dtm_cfg) -> dict:
    dtm_cfg['backbone'].update(
        type='DTMViT',
        out_type='raw',
        final_norm=True,
        use_shared_rel_pos_bias=True,
        layer_scale_init_value=SCALE,
    )
    return dict(dtm_cfg, type='DTMDistillation')
