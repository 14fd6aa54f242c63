"""tools/test.py with a classifier and a segmentor, on tests of a second."""

import json
import pickle

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from PIL import Image
from tiny_run import run_shell, run_tool, write_config

SEGMENTATION = """
custom_imports = dict(imports=['mmdtm.plugin'], allow_failed_imports=False)
default_scope = 'mmseg'
bn = dict(type='SyncBN')
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[127.0] * 3, std=[64.0] * 3, size=(32, 32)),
    backbone=dict(type='ResNet', depth=18, stem_channels=4, base_channels=4,
                  norm_cfg=bn),
    decode_head=dict(
        type='FCNHead', in_channels=32, channels=8, num_convs=1, num_classes=2,
        norm_cfg=bn, loss_decode=dict(type='CrossEntropyLoss')),
    train_cfg=dict(), test_cfg=dict(mode='whole'))
dataset = dict(
    type='BaseSegDataset', data_root='{data}', metainfo=dict(
        classes=('dark', 'light'), palette=[[0, 0, 255], [255, 0, 0]]),
    data_prefix=dict(img_path='images', seg_map_path='masks'), pipeline=[
        dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
        dict(type='PackSegInputs')])
test_dataloader = dict(
    batch_size=1, num_workers=0, dataset=dataset,
    sampler=dict(type='DefaultSampler', shuffle=False))
test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_cfg = dict(type='TestLoop')
"""


def save_model(config, path) -> None:
    """A checkpoint that predicts its last class, whatever the image."""
    cfg = Config.fromfile(config)
    model = MODELS.build({**cfg.model, '_scope_': cfg.default_scope})
    head = getattr(model, 'head', None) or model.decode_head
    last = getattr(head, 'fc', None) or head.conv_seg
    torch.nn.init.zeros_(last.weight)
    with torch.no_grad():
        last.bias.copy_(torch.tensor([0.0, 1.0]))
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)


@pytest.fixture
def classifier(tmp_path):
    config = write_config(tmp_path)
    save_model(config, tmp_path / 'always_1.pth')
    return config, tmp_path / 'always_1.pth', '--work-dir', tmp_path / 'run'


@pytest.fixture
def segmentor(tmp_path):
    """4 images, a quarter of their pixels in class 1."""
    for kind in ('images', 'masks'):
        (tmp_path / 'data' / kind).mkdir(parents=True)
    mask = np.zeros((32, 32), np.uint8)
    mask[:16, :16] = 1
    for number in range(4):
        Image.fromarray(mask).save(tmp_path / f'data/masks/{number}.png')
        grey = Image.fromarray(mask * 200).convert('RGB')
        grey.save(tmp_path / f'data/images/{number}.jpg')
    config = tmp_path / f'{tmp_path.name}.py'
    config.write_text(SEGMENTATION.replace('{data}', str(tmp_path / 'data')))
    save_model(config, tmp_path / 'always_1.pth')
    return config, tmp_path / 'always_1.pth', '--work-dir', tmp_path / 'run'


def test_a_classifiers_metrics_are_written(tmp_path, classifier):
    out = tmp_path / 'metrics.json'
    run_tool('test.py', *classifier, '--out', out)
    assert json.loads(out.read_text()) == {'accuracy/top1': 50.0}


def test_a_classifiers_predictions_and_pictures_are_written(tmp_path, classifier):
    out, show = tmp_path / 'predictions.pkl', tmp_path / 'show'
    run_tool('test.py', *classifier, '--out', out, '--show-dir', show, '--interval', 4)
    predictions = pickle.loads(out.read_bytes())
    assert [int(p['pred_label']) for p in predictions] == [1] * 16
    # 0 to 7 of either class, each fourth.
    assert {path.name[0] for path in show.glob('*.png')} == {'0', '4'}


@pytest.mark.slow
def test_a_segmentors_metrics_and_pictures_are_written(tmp_path, segmentor):
    out, show = tmp_path / 'metrics.json', tmp_path / 'show'
    run_tool('test.py', *segmentor, '--out', out, '--show-dir', show)
    metrics = json.loads(out.read_text())
    # All pixels are said to be class 1: IoU 0 and 1/4.
    assert metrics['mIoU'] == pytest.approx(12.5)
    pictures = list(show.rglob('*.png'))
    assert len(pictures) == 4
    # Drawn over: red, which no image holds.
    pixels = np.asarray(Image.open(pictures[0]).convert('RGB')).astype(int)
    assert (pixels[..., 0] > pixels[..., 2] + 50).any()


@pytest.mark.slow
def test_test_time_augmentation_needs_its_config_and_keeps_the_metrics(
    tmp_path, segmentor
):
    config, *rest = segmentor
    with pytest.raises(ValueError, match='no tta_model and tta_pipeline'):
        run_tool('test.py', config, *rest, '--tta')
    config.write_text(
        config.read_text()
        + """
tta_model = dict(type='SegTTAModel')
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='TestTimeAug', transforms=[
        [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
        [dict(type='LoadAnnotations')], [dict(type='PackSegInputs')]])]
"""
    )
    out = tmp_path / 'metrics.json'
    run_tool('test.py', config, *rest, '--tta', '--out', out)
    assert json.loads(out.read_text())['mIoU'] == pytest.approx(12.5)


def test_weights_that_are_not_finite_have_no_metrics(tmp_path, classifier):
    saved = torch.load(classifier[1])
    saved['state_dict']['head.fc.bias'][0] = np.nan
    torch.save(saved, classifier[1])
    with pytest.raises(ValueError, match='always_1.pth has NaN.*head.fc.bias'):
        run_tool('test.py', *classifier, '--out', tmp_path / 'metrics.json')
    assert not (tmp_path / 'metrics.json').exists()


def test_out_must_say_what_to_write(classifier, capsys):
    with pytest.raises(SystemExit):
        run_tool('test.py', *classifier, '--out', 'results.txt')
    assert 'name a .json (metrics) or .pkl (predictions)' in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_give_the_same_metrics(tmp_path, classifier):
    config, checkpoint, *rest = classifier
    out = tmp_path / 'metrics.json'
    more = ('--out', out, '--show-dir', tmp_path / 'show')
    done = run_shell('dist_test.sh', config, checkpoint, 2, *rest, *more)
    assert done.returncode == 0, done.stderr
    assert 'only the first process draws' in done.stderr
    assert json.loads(out.read_text()) == {'accuracy/top1': 50.0}
