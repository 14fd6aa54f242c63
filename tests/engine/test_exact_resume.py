"""Runs that are broken off and resumed give the unbroken run's losses, to the bit."""

import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmpretrain.registry import TRANSFORMS
from tiny_run import ROOT, log_rows, run_shell, run_tool, write_config

import mmdtm.plugin  # noqa: F401
from mmdtm.smoke import shrink

pytestmark = pytest.mark.filterwarnings('ignore:No GPU here')

# 16 images of 24 pixels, noisy, mixed; 5 and a half steps of 3 images in an epoch.
EXTRA = """
train_dataloader['dataset'] = dict(
    type='CustomDataset', data_root=dataset['data_root'], data_prefix='train',
    pipeline=[
        dict(type='LoadWholeImage'),
        dict(type='RandomCrop', crop_size=24, padding=4),
        dict(type='RandomFlip', prob=0.5),
        dict(type='NoisyImage'),
        dict(type='PackInputs')])
train_dataloader.update(batch_size=3)
val_dataloader = dict(val_dataloader, dataset=dict(
    type='CustomDataset', data_root=dataset['data_root'], data_prefix='train',
    pipeline=[
        dict(type='LoadWholeImage'), dict(type='NoisyImage'), dict(type='PackInputs')]))
train_cfg = dict(type='ExactEpochBasedTrainLoop', max_epochs=2)
model.update(train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8)]))
log_processor = dict(window_size=1)
default_hooks.update(
    checkpoint=dict(type='AtomicCheckpointHook', by_epoch=False, interval=1))
custom_hooks = [dict(type='Steps')]
"""
ITER_LOOP = """
train_cfg = dict(type='ExactIterBasedTrainLoop', max_iters=11, val_interval=4)
train_dataloader['sampler'] = dict(type='{}', shuffle=True)
log_processor.update(by_epoch=False)
"""


@TRANSFORMS.register_module()
class NoisyImage(BaseTransform):
    """Draws from each of the three generators."""

    def transform(self, results):
        noise = random.random() + np.random.rand() + torch.rand(()).item()
        results['img'] = (results['img'] * (noise / 3)).astype(np.uint8)
        return results


@HOOKS.register_module()
class Steps(Hook):
    """Notes each step's loss and images, and is killed after one of them."""

    priority = 'LOWEST'
    rows: list = []
    validations: list = []
    stop = None

    def before_train_epoch(self, runner):
        # Whatever a resumed run, or another number of workers, has drawn before.
        random.seed(), np.random.seed(), torch.manual_seed(random.getrandbits(32))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        images = [sample.img_path for sample in data_batch['data_samples']]
        self.rows.append((runner.iter + 1, batch_idx, outputs['loss'].item(), images))
        if runner.iter + 1 == self.stop:
            raise SystemExit(9)

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        scores = [sample.pred_score.tolist() for sample in outputs]
        self.validations.append((runner.iter, scores))


def train(config: Path, work_dir: Path, *args, stop: int | None = None) -> list:
    Steps.rows, Steps.validations, Steps.stop = [], [], stop
    try:
        run_tool('train.py', config, '--work-dir', work_dir, *args)
    except SystemExit as end:
        assert end.code == 9
    return Steps.rows


@pytest.fixture(scope='module')
def unbroken(tmp_path_factory) -> tuple[Path, Path, list]:
    """A run's config, its folder, and its steps."""
    folder = tmp_path_factory.mktemp('unbroken')
    config = write_config(folder, EXTRA)
    return config, folder / 'whole', train(config, folder / 'whole')


def check(tmp_path: Path, extra: str, last: int, stops=None) -> Path:
    """Resume a run's checkpoints of some steps, and compare what that did."""
    config = write_config(tmp_path, EXTRA + extra)
    whole = train(config, tmp_path / 'whole')
    validations = Steps.validations
    assert [row[0] for row in whole] == list(range(1, last + 1))
    assert len({row[2] for row in whole}) == last
    assert whole[6][3] != whole[0][3], 'another order in the second epoch'
    assert len({iteration for iteration, _ in validations}) > 1
    for number, stop in enumerate(stops or [2, 5, 6, 8]):
        run, saved = tmp_path / f'run{stop}', tmp_path / f'whole/iter_{stop}.pth'
        # The first with another number of workers.
        workers = f'train_dataloader.num_workers={0 if number else 2}'
        rest = train(config, run, '--resume', saved, '--cfg-options', workers)
        assert rest == whole[stop:]
        # One that was due when the checkpoint was written is among them.
        assert Steps.validations == [v for v in validations if v[0] >= stop]
        ends = [tmp_path / name / f'iter_{last}.pth' for name in ('whole', run.name)]
        ours, theirs = (torch.load(end, weights_only=False) for end in ends)
        for part in ('state_dict', 'optimizer'):
            torch.testing.assert_close(ours[part], theirs[part], rtol=0, atol=0)
        for part in ('param_schedulers', 'position'):
            assert ours[part] == theirs[part]
    return tmp_path


@pytest.mark.slow
def test_epochs(tmp_path):
    """Also after the last step of an epoch, whose validation then comes first."""
    check(tmp_path, '', 12)


@pytest.mark.slow
def test_epochs_saved_after_epochs(tmp_path):
    saving = "default_hooks['checkpoint'].update(by_epoch=True)\n"
    config = write_config(tmp_path, EXTRA + saving)
    whole, validations = train(config, tmp_path / 'whole'), Steps.validations
    train(config, tmp_path / 'run', stop=9)
    assert train(config, tmp_path / 'run', '--resume') == whole[6:]
    # Also the one that followed upon the checkpoint.
    assert Steps.validations == validations


@pytest.mark.slow
@pytest.mark.parametrize('sampler', ['InfiniteSampler', 'DefaultSampler'])
def test_iterations(tmp_path, sampler):
    check(tmp_path, ITER_LOOP.format(sampler), 11, stops=[4, 5, 7])


@pytest.mark.slow
@pytest.mark.parametrize('loop', ['', ITER_LOOP.format('InfiniteSampler')])
def test_within_a_cycle_of_accumulated_gradients(tmp_path, loop):
    extra = loop + 'optim_wrapper.update(accumulative_counts=4)\n'
    root = check(tmp_path, extra, 12 - bool(loop), stops=[5, 6])
    saved = [
        torch.load(root / f'whole/iter_{i}.pth', weights_only=False) for i in (6, 8)
    ]
    assert [len(s.get('accumulated_gradients', [])) for s in saved] == [1, 0]


@pytest.mark.slow
def test_averaged_weights_go_on(tmp_path):
    extra = "custom_hooks.append(dict(type='EMAHook', momentum=0.1))\n"
    root = check(tmp_path, extra, 12, stops=[5])
    ends = [
        torch.load(root / name / 'iter_12.pth', weights_only=False)['ema_state_dict']
        for name in ('whole', 'run5')
    ]
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=0)


@pytest.mark.slow
def test_a_run_without_a_seed_goes_on_with_its_own(tmp_path):
    """And one whose processes have their own, and one that is not shuffled."""
    check(tmp_path, 'randomness = dict(seed=3, diff_rank_seed=True)\n', 12, stops=[5])
    config = write_config(tmp_path, EXTRA + 'randomness = dict(seed=None)\n')
    Steps.rows, Steps.stop = [], None
    whole = train(config, tmp_path / 'seedless', stop=7)
    again = train(
        config, tmp_path / 'again', '--resume', tmp_path / 'seedless/iter_3.pth'
    )
    assert again[:4] == whole[3:]


@pytest.mark.slow
def test_another_batch_size_keeps_the_order_and_says_so(unbroken, tmp_path, capfd):
    config, folder, whole = unbroken
    options = ('--cfg-options', 'train_dataloader.batch_size=2')
    start = ('--resume', folder / 'iter_2.pth')
    rest = train(config, tmp_path / 'run', *start, *options)
    assert 'saved with total_batch_size=3, and this run has 2' in capfd.readouterr().out

    def images(rows):
        return [image for row in rows for image in row[3]]

    assert images(rest)[:10] == images(whole)[6:16]
    assert images(rest)[10:26] == images(whole)[16:32]


@pytest.mark.slow
def test_weights_alone_start_at_the_beginning(unbroken, tmp_path):
    config, folder, whole = unbroken
    load = ('--cfg-options', f'load_from={folder}/iter_5.pth')
    assert [row[3] for row in train(config, tmp_path / 'b', *load)] == [
        row[3] for row in whole
    ]


def test_no_batch_at_all(tmp_path):
    extra = ITER_LOOP.format('DefaultSampler')
    extra += 'train_dataloader.update(batch_size=17, drop_last=True)\n'
    config = write_config(tmp_path, EXTRA + extra)
    with pytest.raises(SystemExit, match='16 images, fewer than one step takes: 17'):
        run_tool('train.py', config, '--work-dir', tmp_path / 'run')


PARTS = "custom_imports['imports'].append('test_exact_resume')\n"


def run_processes(config: Path, number: int, work_dir: Path, *args, **env) -> list:
    """The losses that the first of several processes logged."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parent)])
    args = ('--work-dir', work_dir, *args)
    done = run_shell('dist_train.sh', config, number, *args, PYTHONPATH=path, **env)
    assert done.returncode == 0, done.stderr
    rows = [(row['step'], row['loss']) for row in log_rows(work_dir)]
    return rows, done


@pytest.mark.slow
@pytest.mark.parametrize('accumulated', [1, 3])
@pytest.mark.parametrize('loop', ['', ITER_LOOP.format('InfiniteSampler')])
def test_processes(tmp_path, loop, accumulated):
    extra = f'{PARTS}{loop}optim_wrapper.update(accumulative_counts={accumulated})\n'
    last = 11 if loop else 6
    config = write_config(tmp_path, EXTRA + extra)
    whole, _ = run_processes(config, 2, tmp_path / 'whole')
    assert [step for step, _ in whole] == list(range(1, last + 1))

    resume = ('--resume', tmp_path / 'whole/iter_2.pth')
    workers = ('--cfg-options', 'train_dataloader.num_workers=2')
    rest, _ = run_processes(config, 2, tmp_path / 'run', *resume, *workers)
    assert rest == whole[2:]


@pytest.mark.slow
def test_another_number_of_processes_keeps_samples_and_shared_draws(tmp_path):
    """The mean of both losses is then that of one process, but for rounding."""
    cfg = Config.fromfile(ROOT / 'configs/dtm_vit-b_300e.py')
    shrink(cfg, tmp_path / 'data')
    cfg.train_cfg.max_epochs = 4
    cfg.default_hooks.checkpoint.max_keep_ckpts = -1  # the first is gone on from
    cfg.model.morphing.share_across_ranks = True
    cfg.model.backbone.drop_path_rate = 0
    cfg.custom_imports.imports.append('test_exact_resume')
    cfg.custom_hooks = [dict(type='Seen')]
    cfg.dump(tmp_path / 'config.py')

    def run(number: int, *args) -> list:
        name = tmp_path / f'{number}-processes'
        size = f'train_dataloader.batch_size={4 // number}'
        args = (tmp_path / 'config.py', number, name, *args, '--cfg-options', size)
        _, done = run_processes(*args)
        seen = [map(json.loads, file.open()) for file in name.glob('seen*')]
        assert len(seen) == number
        return list(zip(*seen, strict=True)), done.stdout

    one, _ = run(1)
    two, log = run(2, '--resume', tmp_path / '1-processes/epoch_1.pth')
    assert 'saved with processes=1, and this run has 2' in log
    assert 'total_batch_size' not in log
    assert len(one) == 4 and len(two) == 3
    for (whole,), parts in zip(one[1:], two, strict=True):
        assert parts[0]['samples'] | parts[1]['samples'] == whole['samples']
        mean = sum(part['loss'] for part in parts) / 2
        assert mean == pytest.approx(whole['loss'], rel=1e-5)


@HOOKS.register_module()
class Seen(Hook):
    """Writes each process's losses, and crops and masks by image."""

    parts = ('data_samples', 'inputs', 'mask')

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        rows = zip(*(data_batch[key] for key in self.parts), strict=True)
        samples = {
            sample.img_path: [crop.sum().item(), mask.flatten().nonzero().tolist()]
            for sample, crop, mask in rows
        }
        row = json.dumps(dict(samples=samples, loss=outputs['loss'].item()))
        with Path(runner.work_dir, f'seen{get_rank()}').open('a') as file:
            print(row, file=file)
