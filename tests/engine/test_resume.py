"""A pre-training that is broken off and resumed, with a config as users run it."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.visualization import Visualizer

import mmdtm.plugin  # noqa: F401
from mmdtm.engine.launch import build_runner, find_checkpoint
from mmdtm.smoke import shrink

CONFIGS = Path(__file__).parents[2] / 'configs'
CONFIG = CONFIGS / 'dtm_vit-b_300e.py'


class DrawRecorder(Hook):
    """Notes what each training step drew, and its learning rate."""

    def __init__(self, rows: list) -> None:
        self.rows = rows

    def before_train(self, runner) -> None:
        morphing, draw = runner.model.morphing, runner.model.morphing.assign

        def noted(tokens, level_draw):
            self.rows[-1]['draws'].append(level_draw)
            return draw(tokens, level_draw)

        morphing.assign = noted

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        lr = runner.optim_wrapper.get_lr()['lr']
        names = [sample.img_path for sample in data_batch['data_samples']]
        self.rows.append(dict(draws=[], lr=lr, images=names))


def train(folder: Path, epochs: int, resume: bool = False) -> tuple[list, dict]:
    """Steps as they went, and the last checkpoint."""
    Visualizer._instance_dict.clear()
    cfg = Config.fromfile(CONFIG)
    cfg.work_dir = str(folder)
    cfg.launcher = 'none'
    cfg.experiment_name = f'{folder.name}{epochs}'
    shrink(cfg, folder.parent / 'made_data')
    cfg.param_scheduler[0].end = 1
    cfg.param_scheduler[1].update(begin=1, end=3, T_max=2)
    cfg.train_cfg.max_epochs = epochs
    if resume:
        cfg.resume, cfg.load_from = True, find_checkpoint(str(folder))
    rows, runner = [], build_runner(cfg)
    runner.register_hook(DrawRecorder(rows))
    runner.train()
    saved = torch.load(folder / f'epoch_{epochs}.pth', weights_only=False)
    return rows, saved


def test_resumed_run_goes_on_as_the_unbroken_one(tmp_path):
    unbroken, whole = train(tmp_path / 'unbroken', 3)
    begun, first = train(tmp_path / 'broken', 1)
    rest, last = train(tmp_path / 'broken', 3, resume=True)
    assert len(begun) == len(rest) // 2 == len(unbroken) // 3 == 2
    assert begun + rest == unbroken
    draws = [draw for row in unbroken for draw in row['draws']]
    assert len(draws) == len(set(draws)) == 2 * len(unbroken)  # two levels

    for name in ('optimizer', 'param_schedulers'):
        assert name in last
    state, expected = last['optimizer'], whole['optimizer']
    steps = [{float(s['step']) for s in o['state'].values()} for o in (state, expected)]
    assert steps == [{6.0}, {6.0}]
    assert [g['lr'] for g in state['param_groups']] == [
        g['lr'] for g in expected['param_groups']
    ]
    assert last['param_schedulers'] == whole['param_schedulers']
    assert last['meta']['iter'] == 6


def test_the_checkpoint_holds_no_teacher(tmp_path):
    _, saved = train(tmp_path / 'run', 1)
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
