"""mmdtm pretrain: from a folder of images to a model in all forms."""

import mmdtm.plugin  # noqa: F401  # isort: skip

import json
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import timm
import torch
import transformers
from mmengine.config import Config
from PIL import Image

from mmdtm import cli
from mmdtm.cli import pretrain
from mmdtm.cli.pretrain import size_recipe
from mmdtm.hub import get_model
from mmdtm.run_record import lineage_of
from mmdtm.smoke import shrink_model


def draw(folder, classes=2, each=5):
    noise = np.random.default_rng(0)
    for label in range(classes):
        place = folder / f'class{label}'
        place.mkdir(parents=True)
        for i in range(each):
            pixels = noise.integers(0, 100, (72, 80, 3)) + 150 * label
            Image.fromarray(pixels.astype(np.uint8)).save(place / f'{i}.png')
    return folder


@pytest.mark.parametrize(
    ('images', 'gpus', 'batch', 'steps', 'epochs'),
    [
        (64, 1, 16, 4, 3000),
        (3, 1, 1, 3, 3000),
        (1000, 1, 128, 7, 2858),
        (10_000, 1, 128, 78, 300),
        (1_281_167, 8, 128, 1251, 300),
    ],
)
def test_recipe_is_sized_to_the_images(images, gpus, batch, steps, epochs):
    sizes = size_recipe(images, gpus)
    assert (sizes['batch'], sizes['steps']) == (batch, steps)
    assert sizes['epochs'] == epochs
    assert sizes['warm_up'] == epochs // 30
    assert sizes['rate'] == pytest.approx(1.5e-4 * (batch * gpus / 1024) ** 0.5)


def test_too_few_images_for_a_batch():
    with pytest.raises(
        ValueError, match='9 images .*10 in each .*smaller --batch-size'
    ):
        size_recipe(9, batch=10)


def test_config_can_be_inherited(tmp_path):
    data, out = draw(tmp_path / 'data'), tmp_path / 'out'
    words = ['--data', data, '--out', out, '--teacher', 'laion2b_s34b_b88k']
    cli.main(['pretrain', *map(str, words), '--config-only'])
    (tmp_path / 'mine.py').write_text("_base_ = './out/config.py'\n")
    cfg = Config.fromfile(tmp_path / 'mine.py')
    assert cfg.model.target_generator.pretrained == 'laion2b_s34b_b88k'
    assert cfg.train_dataloader.dataset.data_root == str(data)
    assert cfg.train_dataloader.batch_size == 2
    assert cfg.train_cfg.max_epochs == 3000
    warm_up, cosine = cfg.param_scheduler
    assert warm_up.end == cosine.begin == 100
    assert cosine.eta_min < cfg.optim_wrapper.optimizer.lr
    said = pretrain.announce(tmp_path / 'mine.py', 10, 1)
    assert '10 images: 15,000 steps of 2 in 3,000 epochs' in said


def test_processes_share_the_cores_and_a_file_is_found_from_anywhere(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pretrain.os, 'cpu_count', lambda: 2)
    (tmp_path / 'clip.pt').touch()
    draw(tmp_path / 'data')
    for gpus, workers in ((1, 2), (4, 0)):
        words = f'--data data --out out{gpus} --teacher clip.pt --gpus {gpus}'
        cli.main(['pretrain', *words.split(), '--config-only'])
        cfg = Config.fromfile(tmp_path / f'out{gpus}/config.py')
        assert cfg.train_dataloader.num_workers == workers
        assert cfg.train_dataloader.persistent_workers == (workers > 0)
        assert cfg.model.target_generator.pretrained == str(tmp_path / 'clip.pt')


def test_numbers_that_are_too_small_are_said(tmp_path, capsys):
    for words in ('--gpus 0', '--batch-size 0', '--epochs 1'):
        with pytest.raises(SystemExit):
            cli.main(['pretrain', '--data', str(tmp_path), *words.split()])
        assert f'{words} is too small: give ' in capsys.readouterr().err


def test_a_config_that_is_there_is_kept(tmp_path, capsys):
    words = ['--data', str(draw(tmp_path / 'data')), '--out', str(tmp_path)]
    cli.main(['pretrain', *words, '--config-only'])
    text = (tmp_path / 'config.py').read_text()
    assert 'is kept' not in capsys.readouterr().out
    cli.main(['pretrain', *words, '--config-only', '--epochs', '2'])
    assert (tmp_path / 'config.py').read_text() == text
    assert 'config.py is kept' in capsys.readouterr().out


def test_a_teacher_that_is_not_there_is_one_message(tmp_path):
    words = ['--data', draw(tmp_path / 'data'), '--out', tmp_path, '--teacher', 'x.pt']
    with pytest.raises(SystemExit, match="^error: .* 'x.pt' are neither a file"):
        cli.main(['pretrain', *map(str, words)])
    assert not (tmp_path / 'config.py').exists(), 'another --teacher is taken'


def test_the_training_split_alone_is_learnt_from(tmp_path):
    draw(tmp_path / 'data/train')
    draw(tmp_path / 'data/val', each=2)
    words = ['--data', str(tmp_path / 'data'), '--out', str(tmp_path / 'out')]
    cli.main(['pretrain', *words, '--config-only'])
    cfg = Config.fromfile(tmp_path / 'out/config.py')
    assert cfg.train_dataloader.dataset.data_prefix == 'train'
    assert 'on 10 images' in cfg.text


def test_several_processes_are_started_by_the_script(tmp_path, monkeypatch):
    words = ['--data', str(draw(tmp_path / 'data')), '--out', str(tmp_path)]
    cli.main(['pretrain', *words, '--config-only'])
    started = []

    def run(command, env):
        started.append(command)
        return SimpleNamespace(returncode=7)

    monkeypatch.setattr(pretrain.subprocess, 'run', run)
    config, work = tmp_path / 'config.py', tmp_path / 'run'
    with pytest.raises(SystemExit) as stop:
        pretrain.run_training(config, work, gpus=2, smoke=True)
    assert stop.value.code == 7, "the training's own"
    (command,) = started
    assert command[1].endswith('tools/dist_train.sh')
    assert command[2:4] == [str(config), '2']
    assert {'--work-dir', str(work), '--resume', 'auto', '--smoke'} <= {*command[4:]}


def test_what_was_learnt_is_compared_with_a_random_start(tmp_path):
    words = ['--data', str(draw(tmp_path / 'data')), '--out', str(tmp_path)]
    cli.main(['pretrain', *words, '--config-only'])
    config = tmp_path / 'config.py'
    cfg = Config.fromfile(config)
    shrink_model(cfg.model)
    learnt = get_model(cfg).state_dict()
    learnt = {name: torch.rand_like(value) for name, value in learnt.items()}
    torch.save(dict(state_dict=learnt), tmp_path / 'a.pth')
    found = [
        pretrain.build_embedders(config, tmp_path / 'a.pth', smoke=True)
        for _ in range(2)
    ]
    name = next(n for n in learnt if n.startswith('backbone.') and n.endswith('weight'))
    pre, start = (
        [f[kind].backbone.state_dict()[name.removeprefix('backbone.')] for f in found]
        for kind in ('pretrained', 'random_start')
    )
    assert torch.equal(pre[0], learnt[name])
    assert torch.equal(*start) and not torch.equal(start[0], pre[0])


@pytest.mark.slow
def test_one_folder_with_all_forms(tmp_path, capsys):
    data, out = draw(tmp_path / 'data'), tmp_path / 'out'
    words = ['pretrain', '--data', str(data), '--out', str(out), '--smoke']
    cli.main(words)
    results = out / 'results-smoke'
    values = json.loads((results / 'values.json').read_text())
    assert values['images'] == 10 and values['classes'] == values['images_asked'] == 2
    assert values['pretrained']['knn_top1'] == 100, 'dark and light images'
    lineage = lineage_of(results / 'checkpoint.pth')
    assert lineage['config'] == str(out / 'config')

    images = torch.randn(1, 3, 64, 64)
    folder = f'local-dir:{results / "timm"}'
    model = timm.create_model(folder, pretrained=True).eval()
    bert = transformers.BeitModel.from_pretrained(results / 'transformers').eval()
    session = onnxruntime.InferenceSession(results / 'model.onnx')
    with torch.no_grad():
        expected = model.forward_features(images)
        torch.testing.assert_close(
            bert(images).last_hidden_state, expected, rtol=1e-3, atol=1e-4
        )
    (found,) = session.run(None, {'images': images.numpy()})
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)

    before = {
        p: p.stat().st_mtime_ns for p in results.iterdir() if p.name != 'values.json'
    }
    capsys.readouterr()
    cli.main(words)
    assert 'epoch_1.pth is there: nothing is left to train' in capsys.readouterr().out
    assert before == {p: p.stat().st_mtime_ns for p in before}
