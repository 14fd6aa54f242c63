"""A loss or gradient that is no number stops all processes before the update."""

import json
import sys
from unittest import mock

import pytest
import torch
from mmengine.optim import OptimWrapper
from tiny_run import log_rows, run_shell, run_tool, write_config

MODEL = """
import torch
from mmengine.model import BaseModel
from mmpretrain.registry import MODELS

built = []


@MODELS.register_module(force=True)
class Breaks(BaseModel):
    'Its loss, or gradient, is not finite when a certain image is in the batch.'

    def __init__(self, image, factor, gradient):
        super().__init__()
        self.image, self.factor, self.gradient = image, float(factor), gradient
        self.weight = torch.nn.Parameter(torch.ones(3))
        built.append(self)

    def forward(self, inputs, data_samples=None, mode='loss'):
        means = torch.stack(list(inputs)).float().mean((0, 2, 3)) / 255
        loss = (means * self.weight).sum()
        if any(sample.img_path.endswith(self.image) for sample in data_samples):
            if self.gradient:
                self.weight.register_hook(lambda gradient: gradient * self.factor)
            else:
                loss = loss * self.factor
        return dict(loss=loss)
"""

# Images come in the order c0/0 ... c0/7, c1/0 ... c1/7, four at a time.
CONFIG = """
custom_imports['imports'] += ['breaking_model']
model = dict(type='Breaks', image='{image}', factor='{factor}', gradient={gradient})
del data_preprocessor, val_dataloader, val_evaluator, val_cfg
train_dataloader['sampler'] = dict(type='DefaultSampler', shuffle=False)
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1),
    accumulative_counts={accumulate}, clip_grad=dict(max_norm=1.0))
param_scheduler = []
default_hooks['checkpoint'] = dict(type='CheckpointHook', interval=1, by_epoch=False)
custom_hooks = [dict(type='NonFiniteLossHook')]
"""


@pytest.fixture
def breaking(tmp_path, monkeypatch):
    """Makes a config whose loss breaks at an image; and gives the built models."""
    (tmp_path / 'breaking_model.py').write_text(MODEL)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, 'breaking_model', raising=False)

    def write(
        image: str, factor: str = 'nan', accumulate: int = 1, gradient: bool = False
    ):
        text = CONFIG.format(
            image=image, factor=factor, accumulate=accumulate, gradient=gradient
        )
        return write_config(tmp_path, text)

    yield write
    sys.modules.pop('breaking_model', None)


@pytest.mark.parametrize('factor', ['nan', '-inf'])
def test_stops_before_the_update(tmp_path, breaking, factor):
    config, run = breaking('c0/5.JPEG', factor), tmp_path / 'run'
    with pytest.raises(FloatingPointError, match='loss of step 2.*iter_1.pth'):
        run_tool('train.py', config, '--work-dir', run)

    (model,) = sys.modules['breaking_model'].built
    saved = torch.load(run / 'iter_1.pth', weights_only=False)['state_dict']
    assert not torch.equal(saved['weight'], torch.ones(3)), 'step 1 was made'
    assert torch.equal(model.weight.data, saved['weight']), 'step 2 was not'
    assert [path.name for path in run.glob('*.pth')] == ['iter_1.pth']

    (file,) = run.glob('non_finite_loss_*.json')
    assert file.name == 'non_finite_loss_step2_rank0.json'
    record = json.loads(file.read_text())
    data = tmp_path / 'data/train/c0'
    assert record['img_paths'] == [str(data / f'{i}.JPEG') for i in (4, 5, 6, 7)]
    assert record['losses'] == [factor]
    assert (record['step'], record['epoch'], record['rank']) == (2, 1, 0)


def test_a_gradient_stops_the_step_as_well(tmp_path, breaking):
    config, run = breaking('c0/5.JPEG', 'inf', gradient=True), tmp_path / 'run'
    with pytest.raises(FloatingPointError, match=r'gradient of step 2.*\(weight;'):
        run_tool('train.py', config, '--work-dir', run)
    (model,) = sys.modules['breaking_model'].built
    saved = torch.load(run / 'iter_1.pth', weights_only=False)['state_dict']
    assert torch.equal(model.weight.data, saved['weight']), 'step 2 was not made'
    record = json.loads((run / 'non_finite_gradient_step2_rank0.json').read_text())
    data = tmp_path / 'data/train/c0'
    assert record['img_paths'] == [str(data / f'{i}.JPEG') for i in (4, 5, 6, 7)]
    assert float(record['losses'][0]) > 0


def test_a_loss_scaler_that_no_longer_copes(tmp_path, breaking):
    class Scaler:
        scale = 2.0**-8

        def get_scale(self):
            self.scale /= 2
            return self.scale

    build = OptimWrapper.__init__

    def with_scaler(self, *args, **kwargs):
        build(self, *args, **kwargs)
        self.loss_scaler = Scaler()

    config = breaking('no image')
    with (
        mock.patch.object(OptimWrapper, '__init__', with_scaler),
        pytest.raises(FloatingPointError, match='step 3.*whatever the loss scale'),
    ):
        run_tool('train.py', config, '--work-dir', tmp_path / 'run')


def test_accumulated_gradients_are_judged_together(tmp_path, breaking):
    config, run = breaking('c0/0.JPEG', accumulate=2), tmp_path / 'run'
    with pytest.raises(FloatingPointError, match='loss of step 2'):
        run_tool('train.py', config, '--work-dir', run)
    (model,) = sys.modules['breaking_model'].built
    assert torch.equal(model.weight.data, torch.ones(3))
    record = json.loads((run / 'non_finite_loss_step2_rank0.json').read_text())
    assert [path[-6:] for path in record['img_paths']] == [
        f'{i}.JPEG' for i in range(4)
    ], 'the first micro-batch alone'


def test_finite_losses_pass(tmp_path, breaking):
    run_tool('train.py', breaking('no image'), '--work-dir', tmp_path / 'run')
    assert [row['step'] for row in log_rows(tmp_path / 'run')] == list(range(1, 9))
    assert not list((tmp_path / 'run').glob('non_finite_loss_*'))


@pytest.mark.slow
def test_one_process_stops_the_others(tmp_path, breaking):
    config, run = breaking('c0/1.JPEG'), tmp_path / 'run'  # the second process's
    done = run_shell(
        'dist_train.sh', config, 2, '--work-dir', run, PYTHONPATH=str(tmp_path)
    )
    assert done.returncode != 0
    assert done.stderr.count('FloatingPointError: The loss of step 1') == 2, done.stderr
    assert 'not finite (another process)' in done.stderr
    assert [f.name for f in run.glob('non_finite_loss_*')] == [
        'non_finite_loss_step1_rank1.json'
    ]
    assert not list(run.glob('*.pth'))
