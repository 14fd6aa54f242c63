"""k-NN and linear probe during a tiny pre-training run."""

import json

import pytest
import torch
from mmengine.config import Config
from PIL import Image

import mmdtm.plugin  # noqa: F401
from mmdtm.engine.hooks import FeatureProbeHook
from mmdtm.engine.launch import build_runner

ARCH = dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=96)
CLIP = dict(
    embed_dim=24,
    vision_cfg=dict(image_size=32, layers=1, width=32, head_width=16, patch_size=16),
    text_cfg=dict(context_length=8, vocab_size=16, width=32, heads=2, layers=1),
)


@pytest.fixture
def images(tmp_path):
    """Four images of each of three colours, train/ and val/."""
    colours = dict(red=(255, 0, 0), green=(0, 255, 0), blue=(0, 0, 255))
    for split in ('train', 'val'):
        for name, colour in colours.items():
            folder = tmp_path / 'data' / split / name
            folder.mkdir(parents=True)
            for i in range(4):
                shade = tuple(max(0, value - 15 * i) for value in colour)
                Image.new('RGB', (32, 32), shade).save(folder / f'{i}.png')
    return tmp_path / 'data'


def loader(root, split: str, shuffle: bool, masked: bool, **dataset) -> dict:
    steps = [dict(type='LoadImageFromFile')]
    if masked:
        steps.append(
            dict(
                type='BlockMaskGenerator',
                input_size=2,
                mask_ratio=0.5,
                min_num_patches=1,
            )
        )
    return dict(
        batch_size=6,
        num_workers=0,
        collate_fn=dict(type='default_collate'),
        sampler=dict(type='DefaultSampler', shuffle=shuffle),
        dataset=dict(
            type='ImageFolder',
            data_root=str(root),
            data_prefix=split,
            pipeline=[*steps, dict(type='PackInputs')],
            **dataset,
        ),
    )


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
            model=dict(
                type='DTM',
                data_preprocessor=dict(
                    type='DTMDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3
                ),
                backbone=dict(type='DTMPretrainViT', arch=ARCH, img_size=32),
                head=dict(type='DTMHead'),
                target_generator=dict(
                    type='OpenCLIPGenerator',
                    model='tiny',
                    model_config=CLIP,
                    pretrained=None,
                    random_weights=True,
                ),
                morphing=dict(type='BipartiteMorphing', num_iters=(1, 2), seed=0),
            ),
            train_dataloader=loader(root, 'train', shuffle=True, masked=True),
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
        train_dataloader=loader(root, 'train', shuffle=False, masked=False),
        val_dataloader=loader(root, 'val', shuffle=False, masked=False),
        **kwargs,
    )


@pytest.mark.filterwarnings('ignore:RANDOM TEACHER')
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
        assert 0 < line['probe/features_s'] < 60
    log = next((tmp_path / 'probed').rglob('*.log')).read_text()
    assert 'Frozen features after epoch 2: k-NN 100.00 %, linear probe' in log


@pytest.mark.filterwarnings('ignore:RANDOM TEACHER')
def test_missing_data_stop_the_run_at_its_start(images, tmp_path):
    hook = probe(images)
    hook['val_dataloader']['dataset']['data_prefix'] = 'validation'
    with pytest.raises(FileNotFoundError, match='validation is missing'):
        pretrain(images, tmp_path / 'run', [hook])
    assert not list((tmp_path / 'run').glob('*.pth'))


def test_bad_interval_is_named():
    with pytest.raises(ValueError, match='interval must be 1 or more'):
        FeatureProbeHook({}, {}, interval=0)
