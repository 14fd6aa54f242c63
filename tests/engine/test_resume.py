"""A pre-training that is broken off and resumed, with a config as users run it."""

import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.visualization import Visualizer
from tiny_run import RESUMED

import mmdtm.plugin  # noqa: F401
from mmdtm.engine.launch import build_runner, find_checkpoint
from mmdtm.smoke import shrink

CONFIGS = Path(__file__).parents[2] / 'configs'
CONFIG = CONFIGS / 'dtm_vit-b_300e.py'


class Steps(Hook):
    """Notes what each training step drew, learned from and lost."""

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.rows = []

    def before_train(self, runner) -> None:
        torch.manual_seed(runner.iter)  # as after other work
        morphing = getattr(runner.model, 'morphing', None)
        self.draws = []
        if morphing is not None:
            draw = morphing.assign

            def noted(tokens, level_draw, **shared):
                self.draws.append(level_draw)
                return draw(tokens, level_draw, **shared)

            morphing.assign = noted

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        lr = runner.optim_wrapper.get_lr()['lr']
        images = [sample.img_path for sample in data_batch['data_samples']]
        loss = outputs['loss'].item()
        self.rows.append((runner.iter + 1, batch_idx, loss, lr, images, self.draws))
        self.draws = []


def train(folder: Path, name: str = 'dtm_vit-b_300e.py', resume: bool = False) -> list:
    """Four steps in two epochs, as they went; a resumed run has two workers."""
    Visualizer._instance_dict.clear()
    cfg = Config.fromfile(CONFIGS / name)
    cfg.work_dir, cfg.launcher = str(folder), 'none'
    cfg.experiment_name = f'{folder.name}{resume}'
    shrink(cfg, folder.parent / 'made_data')
    last = {name: 2 * value for name, value in cfg.train_cfg.items() if 'max' in name}
    cfg.train_cfg.update(last)
    cfg.default_hooks.checkpoint.update(
        by_epoch=False, interval=1, save_best=None, max_keep_ckpts=-1
    )
    if resume:
        cfg.resume, cfg.load_from = True, find_checkpoint(str(folder))
        cfg.train_dataloader.num_workers = 2
    steps, runner = Steps(), build_runner(cfg)
    runner.register_hook(steps)
    runner.train()
    assert runner.default_scope.scope_name == cfg.default_scope
    return steps.rows


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore:No GPU here')
@pytest.mark.parametrize('name', RESUMED)
def test_resumed_run_goes_on_as_the_unbroken_one(tmp_path, name):
    whole = train(tmp_path / 'unbroken', name)
    assert [row[0] for row in whole] == [1, 2, 3, 4]
    assert len({row[2] for row in whole}) == 4, 'losses'
    draws = [draw for row in whole for draw in row[-1]]
    assert len(draws) == len(set(draws))
    (tmp_path / 'broken').mkdir()
    shutil.copy(tmp_path / 'unbroken/iter_1.pth', tmp_path / 'broken')
    rest = train(tmp_path / 'broken', name, resume=True)
    assert rest == whole[1:] and len(rest) == 3

    ends = [
        torch.load(tmp_path / run / 'iter_4.pth', weights_only=False)
        for run in ('unbroken', 'broken')
    ]
    for part in ('state_dict', 'optimizer'):
        torch.testing.assert_close(ends[0][part], ends[1][part], rtol=0, atol=0)
    assert ends[0]['param_schedulers'] == ends[1]['param_schedulers']


def test_the_checkpoint_holds_no_teacher(tmp_path):
    train(tmp_path / 'run')
    saved = torch.load(tmp_path / 'run/iter_4.pth', weights_only=False)
    names = set(saved['state_dict'])
    assert {name.split('.')[0] for name in names} <= {
        'backbone', 'head', 'morphing', 'data_preprocessor',
    }  # fmt: skip
    assert any(name.startswith('backbone.') for name in names)


def finetune(folder: Path, **options) -> None:
    """The shipped config, which asks for a pre-trained backbone, made small."""
    Visualizer._instance_dict.clear()
    cfg = Config.fromfile(CONFIGS / 'finetune/dtm_vit-s_300e_in1k.py')
    init_cfg = cfg.model.backbone.init_cfg
    cfg.work_dir, cfg.launcher = str(folder), 'none'
    cfg.experiment_name = f'{folder.name}{len(options)}'
    shrink(cfg, folder.parent / 'made_data')
    cfg.model.backbone.init_cfg = init_cfg
    cfg.merge_from_dict(options)
    build_runner(cfg).train()


@pytest.mark.slow
def test_a_whole_checkpoint_needs_no_pretrained_backbone(tmp_path):
    with pytest.raises(ValueError, match='no checkpoint to start from'):
        finetune(tmp_path / 'a')
    finetune(tmp_path / 'a', **{'model.backbone.init_cfg': None})
    saved = tmp_path / 'a/epoch_1.pth'
    finetune(tmp_path / 'b', load_from=str(saved))
    assert (tmp_path / 'b/epoch_1.pth').is_file()
    finetune(tmp_path / 'a', resume=True, load_from=str(saved))

    other = torch.load(saved, weights_only=False)
    name = 'backbone.layers.0.ffn.layers.1.weight'
    other['state_dict'][name] = other['state_dict'][name][:, :5]
    torch.save(other, tmp_path / 'other.pth')
    with pytest.raises(ValueError, match='other.pth: .*ffn.layers.1.weight'):
        finetune(tmp_path / 'c', load_from=str(tmp_path / 'other.pth'))
