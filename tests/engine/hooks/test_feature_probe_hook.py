"""k-NN and linear probe during a tiny pre-training run."""

import json

import pytest
import torch
from mmengine.config import Config
from tiny import COLOURS, draw_classes, dtm_config, loader_config

import mmdtm.plugin  # noqa: F401
from mmdtm.engine.hooks import FeatureProbeHook
from mmdtm.engine.launch import build_runner

MASKS = dict(type='BlockMaskGenerator', input_size=4, mask_ratio=0.5, min_num_patches=1)


@pytest.fixture
def images(tmp_path):
    """Four images of each of three colours, train/ and val/."""
    for split in ('train', 'val'):
        draw_classes(tmp_path / 'data' / split, COLOURS, each=4, size=(64, 64), fade=15)
    return tmp_path / 'data'


def pretrain(root, work_dir, hooks: list) -> torch.nn.Module:
    """Three epochs of DTM; returns the trained model."""
    cfg = Config(
        dict(
            default_scope='mmpretrain',
            work_dir=str(work_dir),
            # mmengine keeps one visualizer for a name; by default the name is the
            # second of the start, which two quick runs share.
            experiment_name=work_dir.name,
            launcher='none',
            randomness=dict(seed=0),
            model=dtm_config(),
            train_dataloader=loader_config(root, 'train', steps=[MASKS], shuffle=True),
            train_cfg=dict(by_epoch=True, max_epochs=3),
            optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)),
            visualizer=dict(
                type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')]
            ),
            custom_hooks=hooks,
        )
    )
    runner = build_runner(cfg)
    runner.train()
    assert runner.model.training
    return runner.model


def probe(root, **kwargs) -> dict:
    return dict(
        type='FeatureProbeHook',
        train_dataloader=loader_config(root, 'train'),
        val_dataloader=loader_config(root, 'val'),
        **kwargs,
    )


@pytest.mark.slow
def test_reports_every_n_epochs_and_leaves_training_alone(images, tmp_path):
    plain = pretrain(images, tmp_path / 'plain', [])
    probed = pretrain(images, tmp_path / 'probed', [probe(images, interval=2, k=3)])
    # The same images in the same order, the same masks and draws.
    for (name, a), (_, b) in zip(
        plain.state_dict().items(), probed.state_dict().items(), strict=True
    ):
        assert torch.equal(a, b), name

    scalars = next((tmp_path / 'probed').rglob('scalars.json')).read_text()
    lines = [json.loads(line) for line in scalars.splitlines()]
    reports = [line for line in lines if 'probe/knn_top1' in line]
    assert [line['step'] for line in reports] == [2, 3]  # interval, and the last
    for line in reports:
        assert line['probe/knn_top1'] == 100  # plain colours
        assert line['probe/features_s'] > 0
    log = next((tmp_path / 'probed').rglob('*.log')).read_text()
    assert 'Frozen features after epoch 2: k-NN 100.00 %, linear probe' in log


@pytest.mark.slow
def test_missing_data_stop_the_run_at_its_start(images, tmp_path):
    hook = probe(images)
    hook['val_dataloader']['dataset']['data_prefix'] = 'validation'
    with pytest.raises(FileNotFoundError, match='validation is missing'):
        pretrain(images, tmp_path / 'run', [hook])
    assert not list((tmp_path / 'run').glob('*.pth'))


def test_bad_interval_is_named():
    with pytest.raises(ValueError, match='interval is .*. Give an int at least 1'):
        FeatureProbeHook({}, {}, interval=0)
