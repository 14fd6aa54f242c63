"""The loader benchmark: stages and contenders of the pipeline, and the loader."""

import json

import numpy as np
import pytest
from PIL import Image
from tiny_run import ROOT, run_tool


def test_stages_contenders_and_loader(tmp_path, capsys):
    folder = tmp_path / 'images/train/a'
    folder.mkdir(parents=True)
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 256, (60, 80, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f'{number}.jpg')
    out = tmp_path / 'loader.json'
    options = '--images 4 --repeats 1 --workers 0 --batches 1 --batch-size 2'
    run_tool(
        'benchmark/loader.py',
        f'{ROOT}/configs/dtm_vit-b_300e.py',
        *options.split(),
        *('--out', out, '--cfg-options'),
        f'train_dataloader.dataset.data_root={tmp_path}/images',
    )
    result = json.loads(out.read_text())
    rows = {row['name']: row for row in result['rows']}
    ways = ['grey_stride=4', 'jitter, then crop', 'jitter on the device']
    assert list(rows) == ['pipeline', *ways]
    for row in rows.values():
        stages = row['stages']
        assert row['milliseconds_per_image'] == pytest.approx(sum(stages.values()))
        assert row['times_decoding'] * stages['LoadWholeImage'] == pytest.approx(
            row['milliseconds_per_image']
        )
    assert {'ColorJitter', 'RandomResizedCrop'} <= set(
        rows['jitter, then crop']['stages']
    )
    assert result['images_per_second']['0'] > 0
    differs = result['device_jitter']  # images of noise, resized after or before
    assert 0 < differs['mean'] < 10 and differs['maximum'] > differs['percentile_95']
    assert 'jitter, then crop, whole' in capsys.readouterr().out
