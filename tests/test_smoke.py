"""Configs made small: tools/train.py CONFIG --smoke."""

import os
import shutil
from unittest import mock

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmpretrain.registry import DATASETS, MODELS
from tiny_run import ROOT, run_tool

from mmdtm import smoke


@pytest.mark.parametrize('draw', [smoke.draw_classes, smoke.draw_segmentation])
def test_made_images_are_whole_whoever_is_faster(draw, tmp_path, monkeypatch):
    expected = sorted(p.name for p in draw(tmp_path / 'alone').rglob('*'))
    replace = os.replace

    def too_late(part, root):
        shutil.copytree(part, root)
        replace(part, root)

    monkeypatch.setattr(os, 'replace', too_late)
    root = draw(tmp_path / 'made/images')
    assert sorted(p.name for p in root.rglob('*')) == expected
    assert list(root.parent.iterdir()) == [root]


def test_a_try_stays_apart_from_the_real_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_tool('train.py', ROOT / 'configs/dtm_vit-s_300e.py', '--smoke')
    assert [p.name for p in (tmp_path / 'work_dirs').iterdir()] == [
        'dtm_vit-s_300e-smoke'
    ]
    assert (tmp_path / 'work_dirs/dtm_vit-s_300e-smoke/epoch_1.pth').is_file()


def small(**part) -> dict:
    """What becomes of a part of a model beside a backbone."""
    model = ConfigDict(backbone=dict(type='DTMViT'), part=part)
    smoke.shrink_model(model)
    return model.part.to_dict()


def test_a_class_says_how_it_gets_small():
    """As one of a user does; a function is asked about what the config sets."""

    class Wide(torch.nn.Module):
        smoke = dict(width=8, layers=lambda number: number // 4)

    class Wider(Wide):
        pass

    with mock.patch.dict(MODELS.module_dict, dict(Wide=Wide, Wider=Wider)):
        assert small(type='Wide', width=99, depth=3) == dict(
            type='Wide', width=8, depth=3
        )
        assert small(type='mmpretrain.Wider', layers=12) == dict(
            type='mmpretrain.Wider', width=8, layers=3
        )


def test_a_fixed_number_of_tokens_is_scaled_and_a_range_is_kept():
    fixed = small(type='BipartiteMorphing', num_morphed=98)
    assert fixed == dict(type='BipartiteMorphing', num_morphed=8)
    drawn = small(type='BipartiteMorphing', num_morphed=(1, None))
    assert drawn['num_morphed'] == (1, None)
    assert 'num_morphed' not in small(type='BipartiteMorphing')


@pytest.mark.parametrize(
    ('size', 'expected'), [(224, 64), ((512, 512), (64, 64)), ((2048, 512), (256, 64))]
)
def test_sizes_keep_their_shape(size, expected):
    assert small(type='Resize', scale=size)['scale'] == expected


def test_the_data_of_a_hook_are_made_too(tmp_path):
    """As the pilot's probe of the features, whose data have labels."""
    cfg = Config.fromfile(ROOT / 'configs/beyond/pilot_vit-b_20e.py')
    smoke.shrink(cfg, tmp_path)
    (probe,) = [h for h in cfg.custom_hooks if h.type == 'FeatureProbeHook']
    for loader in (probe.train_dataloader, probe.val_dataloader):
        assert loader.batch_size == smoke.BATCH and loader.num_workers == 0
        assert loader.dataset.type == 'ImageFolder'
        assert str(tmp_path) in loader.dataset.data_root
        assert DATASETS.build(loader.dataset)[0]['inputs'].shape == (3, 64, 64)
    assert cfg.train_dataloader.dataset.type == 'UnlabeledImages'


@pytest.mark.parametrize(
    'student', ['MaskedSwinTransformer', 'MaskedSwinTransformerV2', 'MaskedConvNeXt']
)
def test_a_hierarchical_student_gets_small_with_its_masks_and_its_head(student):
    cfg = Config.fromfile(ROOT / 'configs/dtm_vit-s_300e.py')
    model = cfg.model
    model.backbone = ConfigDict(type=student, img_size=224, arch='tiny')
    model.head.grid_size = 14
    smoke.shrink_model(model)
    built = MODELS.build(model)
    assert built.backbone.patch_resolution == (2, 2)
    assert built.backbone.embed_dims == smoke.WIDTH
    assert built.head.grid_size == (4, 4) == built.target_generator.grid_size
    mask = ConfigDict(backbone=dict(type=student), part=dict(cfg.block_mask))
    mask.part.input_size = 7
    smoke.shrink_model(mask)
    assert mask.part.input_size == [2, 2]


def test_bases_that_upstream_has_speak_for_what_inherits_from_them():
    """mmpretrain's MAEViT is in no table, but a VisionTransformer."""
    assert small(type='MAEViT', arch='large')['arch'] == smoke.ARCH
    assert small(type='BEiTV2Neck')['backbone_arch']['depth'] == smoke.DEPTH
