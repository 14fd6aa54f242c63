"""Runs on fewer and fewer images: what is asked for, and what comes of it."""

import json

import pytest
from mmengine.config import Config
from tiny import draw_classes

from mmdtm.hub import get_config


@pytest.fixture(scope='module')
def tool(load_tool):
    return load_tool('image_counts')


@pytest.fixture
def words(tmp_path):
    """A config with a probing hook and 24 images of two classes."""
    colours = dict(dark=(40, 40, 40), light=(200, 200, 200))
    draw_classes(tmp_path / 'data/train', colours, each=12)
    cfg = get_config('dtm_vit-s_300e')
    cfg.custom_hooks.append(dict(type='FeatureProbeHook'))
    cfg.dump(tmp_path / 'pre.py')
    words = [str(tmp_path / 'pre.py'), 'finetune.py', '--out', str(tmp_path / 'out')]
    words += ['--cfg-options', f'train_dataloader.dataset.data_root={tmp_path}/data']
    return [*words, 'train_dataloader.batch_size=4', '--steps', '20', '--images']


def test_fewer_images_are_among_the_more_and_the_steps_are_the_same(tool, words):
    args = tool.parse_args([*words, '8', '12', '--seeds', '0', '1'])
    jobs = [*tool.Comparison(args).jobs()]
    assert [job.name for job in jobs[:5]] == [
        'random-seed0-probe', '8-seed0', '8-seed0-probe', '12-seed0', '12-seed0-probe',
    ]  # fmt: skip
    assert '--seed 0' in ' '.join(map(str, jobs[2].command))
    listed = {}
    for images, seed in ((8, 0), (12, 0), (8, 1)):
        folder = args.out / f'{images}-seed{seed}'
        listed[images, seed] = {*(folder / 'images.txt').read_text().splitlines()}
        cfg = Config.fromfile(folder / 'config.py')
        assert cfg.train_cfg.max_iters == 20 and cfg.randomness.seed == seed
        assert cfg.train_dataloader.dataset.type == 'UnlabeledImages'
        warm_up, cosine = cfg.param_scheduler
        assert (warm_up.end, cosine.begin, cosine.end) == (2, 2, 20)
        assert 'FeatureProbeHook' not in [hook.type for hook in cfg.custom_hooks]
    assert [len(found) for found in listed.values()] == [8, 12, 8]
    assert listed[8, 0] < listed[12, 0] and listed[8, 0] != listed[8, 1]


def test_what_finished_is_in_the_table(tool, words):
    args = tool.parse_args([*words, '8', '--seeds', '0', '1'])
    for name, value in (('random-seed0', 10.0), ('8-seed0', 20.0), ('8-seed1', 26.0)):
        folder = args.out / name
        (folder / 'a/vis_data').mkdir(parents=True)
        metrics = dict(knn_top1=value, linear_top1=value + 1)
        (folder / 'probe.json').write_text(json.dumps(dict(metrics=metrics)))
        rows = [
            dict(loss=loss, iter=step, step=step) for step, loss in ((1, 9), (2, 3))
        ]
        text = '\n'.join(map(json.dumps, rows))
        (folder / 'a/vis_data/scalars.json').write_text(text)
    table = tool.write_results(tool.Comparison(args).collect(), args)
    assert '| none, random start | 1 | – | 10.0 | 11.0 |' in table
    assert '| 8 | 2 | 3.000 ± 0.000 | 23.0 ± 4.2 | 24.0 ± 4.2 |' in table
    content = json.loads((args.out / 'image_counts.json').read_text())
    assert content['settings']['steps'] == 20 and len(content['runs']) == 3


def test_numbers_that_do_not_go_are_said(tool, words):
    with pytest.raises(SystemExit, match='2 images are fewer than a step takes, 4'):
        tool.main([*words, '2'])
    with pytest.raises(SystemExit, match='24 training images, fewer than the 80'):
        tool.main([*words, '80'])
    with pytest.raises(SystemExit):
        tool.parse_args([*words, '0'])
