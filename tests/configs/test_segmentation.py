"""Table 14 read back from what the configs build, ADE20K's layout, small runs."""

import copy
import re
from pathlib import Path
from unittest import mock

import mmseg
import numpy as np
import pytest
import torch
from made_data import (
    CONFIGS,
    TINY,
    check_layer_decay,
    draw_ade,
    for_cpu,
    load,
    rates,
)
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmseg.registry import DATASETS, METRICS, MODELS
from PIL import Image
from sklearn.metrics import confusion_matrix
from tiny_run import run_tool

from mmdtm.engine.launch import build_runner, fit_to_device

NAMES = {  # width, layers, output layers
    'segmentation/upernet_dtm_vit-s_160k_ade20k-512x512': (384, 12, (3, 5, 7, 11)),
    'segmentation/upernet_dtm_vit-b_160k_ade20k-512x512': (768, 12, (3, 5, 7, 11)),
    'segmentation/upernet_dtm_vit-l_160k_ade20k-512x512': (1024, 24, (7, 11, 15, 23)),
}
BASE = 'segmentation/upernet_dtm_vit-b_160k_ade20k-512x512'


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield


def shrink(cfg: Config, crop: int = 64) -> None:
    """A tiny UperNet at 64 pixels, the rest as it is, in place."""
    cfg.model.backbone.update(arch=TINY, img_size=crop, out_indices=[0, 1, 2, 3])
    cfg.model.neck.embed_dim = 48
    cfg.model.decode_head.update(in_channels=[48] * 4, channels=16)
    cfg.model.auxiliary_head.update(in_channels=48, channels=16)
    cfg.model.data_preprocessor.size = (crop, crop)
    cfg.model.test_cfg.update(crop_size=(crop, crop), stride=(43, 43))
    scale = (4 * crop, crop)
    for pipeline in (
        cfg.train_dataloader.dataset.pipeline,
        cfg.val_dataloader.dataset.pipeline,
        cfg.test_dataloader.dataset.pipeline,
    ):
        for step in pipeline:
            if 'scale' in step:
                step.scale = scale
            if 'crop_size' in step:
                step.crop_size = (crop, crop)


def small_run(root: Path, work_dir: Path, iters: int = 2) -> Config:
    cfg = load(BASE)
    for_cpu(cfg, root, work_dir)
    shrink(cfg)
    cfg.train_cfg.update(max_iters=iters, val_interval=iters)
    return cfg


@pytest.mark.parametrize('name', NAMES)
def test_table_14_model_and_optimizer(name, fast_init):
    width, depth, outputs = NAMES[name]
    cfg = load(name)
    cfg.launcher = 'none'
    fit_to_device(cfg)  # SyncBN among others
    model = MODELS.build(cfg.model)
    backbone = model.backbone
    assert (backbone.embed_dims, len(backbone.layers)) == (width, depth)
    assert backbone.img_size == (512, 512)
    assert backbone.out_indices == outputs
    assert backbone.layers[0].drop_path.drop_prob == 0
    assert backbone.layers[-1].drop_path.drop_prob == pytest.approx(0.1)
    assert type(model.decode_head).__name__ == 'UPerHead'
    assert type(model.neck).__name__ == 'Feature2Pyramid'
    assert model.neck.rescales == [4, 2, 1, 0.5]
    assert model.decode_head.num_classes == model.auxiliary_head.num_classes == 150
    assert model.auxiliary_head.loss_decode.loss_weight == 0.4
    assert not any('SyncBatchNorm' in type(m).__name__ for m in model.modules())

    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    check_layer_decay(wrapper, 5e-5, 0.75, depth)


@pytest.mark.slow
@pytest.mark.parametrize('name', NAMES)
def test_table_14_schedule(name):
    cfg = load(name)
    assert cfg.train_cfg.max_iters == 160_000
    assert 8 * cfg.train_dataloader.batch_size == 16
    assert cfg.auto_scale_lr.base_batch_size == 16
    lr = rates(cfg, [5e-5])[:, 0].numpy()
    assert lr[0] == pytest.approx(5e-11)
    assert lr[750] == pytest.approx(2.5e-5, rel=2e-3)
    assert lr.argmax() == 1499
    assert lr[1499] == pytest.approx(5e-5)
    # A straight line from there to zero.
    for share in (0.25, 0.5, 0.75):
        iteration = round(1500 + share * 158_500)
        assert lr[iteration] == pytest.approx((1 - share) * 5e-5, rel=1e-3)
    assert lr[159_999] < 1e-9


def test_it_has_the_parameters_of_mmsegmentations_beit(fast_init):
    cfg = load(BASE)
    cfg.launcher = 'none'
    fit_to_device(cfg)
    ours = MODELS.build(cfg.model)
    beit = dict(
        type='BEiT',
        img_size=(512, 512),
        patch_size=16,
        embed_dims=768,
        num_layers=12,
        num_heads=12,
        mlp_ratio=4,
        out_indices=(3, 5, 7, 11),
        qv_bias=True,
        norm_cfg=dict(type='LN', eps=1e-6),
        init_values=0.1,
    )
    theirs = MODELS.build({**cfg.model, 'backbone': beit})
    count = [sum(p.numel() for p in model.parameters()) for model in (ours, theirs)]
    assert count[0] == count[1]


def test_ade20k_labels(tmp_path):
    """reduce_zero_label: 0 becomes 255, 1..150 become 0..149, 255 stays."""
    draw_ade(tmp_path, images=1, size=(128, 160))
    cfg = load(BASE)
    cfg.val_dataloader.dataset.data_root = str(tmp_path)
    val = DATASETS.build(cfg.val_dataloader.dataset)
    assert len(val.metainfo['classes']) == 150
    item = val[0]
    read = item['data_samples'].gt_sem_seg.data[0].numpy()
    raw = np.array(Image.open(next((tmp_path / 'annotations/validation').iterdir())))
    expected = np.where((raw == 0) | (raw == 255), 255, raw.astype(int) - 1)
    assert set(raw.ravel().tolist()) == {*range(151), 255}
    np.testing.assert_array_equal(read, expected)
    assert item['inputs'].shape[1] == 512  # the shorter side


def scores(predictions: list, labels: list) -> dict:
    """What the config's evaluator says of predictions, (H, W) int64 each."""
    cfg = load(BASE)
    metric = METRICS.build(cfg.test_evaluator)
    metric.dataset_meta = dict(classes=[f'class {i}' for i in range(150)])
    samples = [
        dict(
            pred_sem_seg=dict(data=torch.as_tensor(p)[None]),
            gt_sem_seg=dict(data=torch.as_tensor(label)[None]),
        )
        for p, label in zip(predictions, labels, strict=True)
    ]
    metric.process({}, samples)
    return metric.evaluate(len(samples))


def test_perfect_prediction_scores_100(tmp_path):
    draw_ade(tmp_path, images=3)
    cfg = load(BASE)
    cfg.val_dataloader.dataset.data_root = str(tmp_path)
    val = DATASETS.build(cfg.val_dataloader.dataset)
    labels = [item['data_samples'].gt_sem_seg.data[0].long() for item in val]
    # What is predicted where nothing is labelled must not count.
    predictions = [torch.where(label == 255, 7, label) for label in labels]
    assert scores(predictions, labels) == dict(aAcc=100, mIoU=100, mAcc=100)


def test_known_confusion_scores_what_scikit_learn_says():
    rng = np.random.default_rng(0)
    labels = rng.choice([*range(0, 60), 255], (2, 64, 96))
    wrong = rng.random(labels.shape) < 0.4
    predictions = np.where(wrong, rng.integers(0, 150, labels.shape), labels % 150)
    result = scores(list(predictions), list(labels))

    seen = labels != 255
    matrix = confusion_matrix(labels[seen], predictions[seen], labels=range(150))
    hits = np.diag(matrix)
    with np.errstate(invalid='ignore'):
        iou = hits / (matrix.sum(0) + matrix.sum(1) - hits)
        accuracy = hits / matrix.sum(1)
    assert result['mIoU'] == pytest.approx(100 * np.nanmean(iou), abs=0.006)
    assert result['mAcc'] == pytest.approx(100 * np.nanmean(accuracy), abs=0.006)
    assert result['aAcc'] == pytest.approx(100 * hits.sum() / matrix.sum(), abs=0.006)
    assert 10 < result['mIoU'] < 60


@pytest.mark.slow
def test_trains_validates_and_draws_its_predictions(tmp_path, monkeypatch, capsys):
    """tools/train.py, then tools/test.py --show-dir, slide and whole."""
    draw_ade(tmp_path / 'data', images=2, size=(72, 115))
    monkeypatch.chdir(tmp_path)
    cfg = small_run(tmp_path / 'data', tmp_path / 'run')
    cfg.dump('small.py')
    run_tool('train.py', 'small.py')
    assert (tmp_path / 'run/iter_2.pth').is_file()
    shown = {}
    for mode in ('slide', 'whole'):
        run_tool(
            'test.py', 'small.py', 'run/iter_2.pth', '--show-dir', f'show_{mode}',
            '--out', f'{mode}.json', '--work-dir', f'test_{mode}',
            '--cfg-options', f'model.test_cfg.mode={mode}',
        )  # fmt: skip
        drawn = sorted((tmp_path / f'show_{mode}').rglob('*.png'))
        assert len(drawn) == 2, drawn
        shown[mode] = Config.fromfile(f'{mode}.json')
        assert set(shown[mode]) == {'mIoU', 'mAcc', 'aAcc'}
    # IoU and accuracy of each class.
    printed = capsys.readouterr().out
    assert re.search(r'Class +\| +IoU +\| +Acc', printed)
    assert re.search(r'\| +wall +\| +[\d.]+ +\| +[\d.]+', printed)


@pytest.mark.parametrize('mode', ['slide', 'whole'])
@pytest.mark.parametrize('size', [(72, 115), (30, 150)])  # shorter than a crop
def test_any_image_size_is_segmented(tmp_path, mode, size):
    draw_ade(tmp_path, images=1, size=size)
    cfg = small_run(tmp_path, tmp_path)
    cfg.model.test_cfg.mode = mode
    cfg.launcher = 'none'
    fit_to_device(cfg)
    model = MODELS.build(cfg.model).eval()
    loader = Runner.build_dataloader(cfg.test_dataloader)
    with torch.no_grad():
        sample = model.test_step(next(iter(loader)))[0]
    assert sample.pred_sem_seg.data.shape == (1, *size)
    assert torch.isfinite(sample.seg_logits.data).all()


@pytest.mark.parametrize('size', [(72, 115), (64, 64)])
@pytest.mark.parametrize(
    ('name', 'window'),
    [
        ('mae/mae-base_upernet_8xb2-amp-160k_ade20k-512x512.py', 512),
        ('beit/beit-base_upernet_8xb2-160k_ade20k-640x640.py', 640),
    ],
)
def test_windows_are_those_of_mmsegmentation(name, window, size, tmp_path):
    """No image is padded before the test, so that the last window ends with it."""
    draw_ade(tmp_path, images=1, size=size)
    ours = load(BASE)
    theirs = Config.fromfile(Path(mmseg.__file__).parent / '.mim/configs' / name)
    if window == 512:
        assert ours.model.test_cfg == theirs.model.test_cfg
    else:  # windows and strides of 640; the rest as it is
        ours.model.test_cfg.update(crop_size=(640, 640), stride=(426, 426))
    ours.test_dataloader.dataset.data_root = str(tmp_path)
    ours.test_dataloader.update(num_workers=0, persistent_workers=False)
    small = small_run(tmp_path, tmp_path)
    small.model.decode_head.num_classes = small.model.auxiliary_head.num_classes = 2
    small.launcher = 'none'
    fit_to_device(small)
    model = MODELS.build(small.model)
    batch = next(iter(Runner.build_dataloader(ours.test_dataloader)))

    def windows(cfg: Config) -> list[torch.Tensor]:
        found = []

        def encode_decode(crop, metas):
            found.append(crop)
            return crop.new_zeros(1, 2, *crop.shape[2:])

        preprocessor = MODELS.build(cfg.model.data_preprocessor)
        data = preprocessor(copy.deepcopy(batch), False)
        model.test_cfg = cfg.model.test_cfg
        with mock.patch.object(model, 'encode_decode', encode_decode):
            model.slide_inference(data['inputs'], [data['data_samples'][0].metainfo])
        return found

    expected = windows(theirs)
    assert all(map(torch.equal, windows(ours), expected))
    assert len(windows(ours)) == len(expected) > (size == (72, 115))


def test_padding_does_not_shift_the_prediction(tmp_path):
    """Of a whole image, padded as docs/segmentation.md says: it ends as the image."""
    draw_ade(tmp_path, images=1, size=(64, 88))
    cfg = small_run(tmp_path, tmp_path)
    cfg.merge_from_dict(
        {
            'model.test_cfg.mode': 'whole',
            'model.data_preprocessor.test_cfg.size_divisor': 16,
        }
    )
    cfg.launcher = 'none'
    fit_to_device(cfg)
    model = MODELS.build(cfg.model).eval()
    batch = next(iter(Runner.build_dataloader(cfg.test_dataloader)))
    data = model.data_preprocessor(batch, False)
    assert data['inputs'].shape[-2:] == (64, 96)
    with torch.no_grad():
        logits = model.encode_decode(data['inputs'], [data['data_samples'][0].metainfo])
        sample = model.predict(**data)[0]
    torch.testing.assert_close(sample.seg_logits.data, logits[0, :, :, :88])


def test_a_config_of_mmsegs_own_takes_the_backbone(tmp_path):
    """As docs/segmentation.md: mmseg's own PSPHead over mmpretrain.DTMViT."""
    draw_ade(tmp_path / 'data')
    small = small_run(tmp_path / 'data', tmp_path)
    (tmp_path / 'mine.py').write_text(f"""
custom_imports = dict(imports=['mmdtm.plugin'], allow_failed_imports=False)
default_scope = 'mmseg'
work_dir = {str(tmp_path)!r}
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[127.5] * 3, std=[127.5] * 3,
        bgr_to_rgb=True, size=(64, 64), seg_pad_val=255),
    backbone=dict(
        type='mmpretrain.DTMViT', arch={TINY!r}, img_size=64, out_type='featmap'),
    decode_head=dict(
        type='PSPHead', in_channels=48, in_index=0, channels=16, num_classes=150,
        norm_cfg=dict(type='BN')),
    test_cfg=dict(mode='whole'))
train_dataloader = {small.train_dataloader.to_dict()!r}
train_cfg = dict(type='IterBasedTrainLoop', max_iters=2)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    constructor='LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.75))
""")
    runner = Runner.from_cfg(Config.fromfile(tmp_path / 'mine.py'))
    runner.train()
    assert runner.iter == 2
    assert type(runner.model.backbone).__name__ == 'DTMViT'


@pytest.mark.slow
def test_another_backbone_inherits_the_recipe(tmp_path):
    """As docs/segmentation.md: the recipe over mmpretrain's VisionTransformer."""
    draw_ade(tmp_path / 'data')
    (tmp_path / 'deit.py').write_text(f"""
_base_ = ['{CONFIGS}/{BASE}.py']
model = dict(backbone=dict(
    _delete_=True,
    type='mmpretrain.VisionTransformer',
    arch=dict(embed_dims=48, num_layers=4, num_heads=3, feedforward_channels=96),
    img_size=64, patch_size=16, out_type='featmap', out_indices=[0, 1, 2, 3],
    final_norm=False, drop_path_rate=0.1))
""")
    cfg = Config.fromfile(tmp_path / 'deit.py')
    backbone = cfg.model.backbone.copy()
    for_cpu(cfg, tmp_path / 'data', tmp_path)
    shrink(cfg)
    cfg.model.backbone = backbone
    cfg.train_cfg.update(max_iters=2, val_interval=2)
    runner = build_runner(cfg)
    runner.train()
    lrs = {group['initial_lr'] for group in runner.optim_wrapper.param_groups}
    assert min(lrs) == pytest.approx(5e-5 * 0.75**5)


def test_mask_with_a_wrong_value_is_named(tmp_path):
    draw_ade(tmp_path, images=1, values=[0, 1, 151, 200, 255])
    cfg = small_run(tmp_path, tmp_path)
    with pytest.raises(
        ValueError, match=r'ADE_training_00000000\.png has .*\[151, 200\].*1 to 150'
    ):
        DATASETS.build(cfg.train_dataloader.dataset)[0]


def test_images_without_masks_and_the_reverse_stop_the_run(tmp_path):
    draw_ade(tmp_path, images=2)
    mask = next((tmp_path / 'annotations/validation').glob('*0.png'))
    mask.rename(tmp_path / 'kept.png')
    with pytest.raises(FileNotFoundError, match=rf'1 of 2 images have no.*{mask.name}'):
        build_runner(small_run(tmp_path, tmp_path)).train()
    (tmp_path / 'kept.png').rename(mask)
    next((tmp_path / 'images/validation').glob('*0.jpg')).unlink()
    val = small_run(tmp_path, tmp_path).val_dataloader.dataset
    with pytest.raises(FileNotFoundError, match=rf'1 masks have no.*{mask.name}'):
        DATASETS.build(val)


def test_an_empty_split_is_named(tmp_path):
    draw_ade(tmp_path, images=1)
    for path in (tmp_path / 'images/training').iterdir():
        path.unlink()
    train = small_run(tmp_path, tmp_path).train_dataloader.dataset
    with pytest.raises(FileNotFoundError, match=r'images/training has no \.jpg file'):
        DATASETS.build(train)
    (tmp_path / 'images/training').rmdir()
    with pytest.raises(FileNotFoundError, match=r'images/training is missing.*root'):
        DATASETS.build(train)
