"""Configs made small: tools/train.py CONFIG --smoke."""

import os
import shutil

import pytest
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


@pytest.mark.filterwarnings('ignore:RANDOM TEACHER')
def test_a_try_stays_apart_from_the_real_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_tool('train.py', ROOT / 'configs/dtm_vit-s_300e.py', '--smoke')
    assert [p.name for p in (tmp_path / 'work_dirs').iterdir()] == [
        'dtm_vit-s_300e-smoke'
    ]
    assert (tmp_path / 'work_dirs/dtm_vit-s_300e-smoke/epoch_1.pth').is_file()
