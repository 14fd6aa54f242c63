"""Grid searches, most over a stub that "trains" in a moment."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_run import ROOT, load_tool, wait_for

from mmdtm.report import find_runs

tool = load_tool('grid_search.py')

CONFIG = """
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1))
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2)
val_evaluator = dict(type='Accuracy')
"""

# Takes tools/train.py's arguments and leaves its files. What it notes in
# attempts.txt tells a test how often, and when, each run was made.
STUB = """
import argparse, json, os, sys, time
from pathlib import Path
here = Path(__file__).parent
parser = argparse.ArgumentParser()
parser.add_argument('config')
parser.add_argument('--work-dir', type=Path)
parser.add_argument('--launcher')
parser.add_argument('--resume', action='store_true')
parser.add_argument('--cfg-options', nargs='+')
args = parser.parse_args()
options = dict(option.split('=') for option in args.cfg_options)
lr = float(options['optim_wrapper.optimizer.lr'])
wd = float(options.get('optim_wrapper.optimizer.weight_decay', 0))
seed = int(options.get('randomness.seed', 0))
with (here / 'attempts.txt').open('a') as file:
    begun = 'resumed' if args.resume else 'new'
    print(args.work_dir.name, begun, time.time(), file=file)
def start():  # a folder named by the second, as mmengine's are
    return args.work_dir / time.strftime('%Y%m%d_%H%M%S') / 'vis_data'
while start().is_dir():
    time.sleep(0.05)
vis = start()
vis.mkdir(parents=True)
(args.work_dir / 'c.py').write_text('train_cfg = dict(max_epochs=2)')
def write(**row):
    with (vis / 'scalars.json').open('a') as file:
        print(json.dumps(row), file=file)
write(**{'accuracy/top1': 1.0, 'step': 1})
(args.work_dir / 'epoch_1.pth').touch()
time.sleep(float(os.environ.get('STUB_SECONDS', 0.05)))
if str(lr) in os.environ.get('STUB_FAILS', '').split():
    print('ValueError: the loss is not finite at step 3')
    sys.exit(3)
if str(lr) in os.environ.get('STUB_SILENT', '').split():
    (vis / 'scalars.json').unlink()
    sys.exit(0)
write(**{'accuracy/top1': 80 + 10 * lr - wd + 0.37 * seed, 'step': 2})
with (here / 'attempts.txt').open('a') as file:
    print(args.work_dir.name, 'end', time.time(), file=file)
"""


@pytest.fixture
def stub(tmp_path) -> Path:
    """A folder with a config and tools whose train.py is the stub."""
    (tmp_path / 'tools').mkdir()
    (tmp_path / 'tools/train.py').write_text(STUB)
    for name in ('dist_train.sh', 'slurm_train.sh', 'launch.sh'):
        shutil.copy(ROOT / 'tools' / name, tmp_path / 'tools')
    (tmp_path / 'config.py').write_text(CONFIG)
    return tmp_path


def arguments(stub: Path, *more: str, lr='0.1 0.2 0.3', work_dir='search') -> list[str]:
    return [
        str(stub / 'config.py'),
        *(['--lr', *lr.split()] if lr else []),
        *('--work-dir', str(stub / work_dir), '--tools', str(stub / 'tools')),
        *more,
    ]


@pytest.fixture
def search(stub, capsys, monkeypatch):
    """Runs the tool; gives its exit status and what it printed."""
    monkeypatch.setenv('COLUMNS', '200')

    def run(*more: str, env: dict[str, str] | None = None, **options):
        with monkeypatch.context() as patch:
            for name, value in (env or {}).items():
                patch.setenv(name, value)
            try:
                status = tool.main(arguments(stub, *more, **options))
            except SystemExit as error:  # argparse's, or with a message
                status = error.code if isinstance(error.code, int) else 1
                print(error, file=sys.stderr)
        return status, *capsys.readouterr()

    return run


def attempts(stub: Path, kind: str = '') -> list[str]:
    """Names of the runs that were begun, ended, ..., in order."""
    path = stub / 'tools/attempts.txt'
    lines = [line.split() for line in path.read_text().splitlines()]
    return [line[0] for line in lines if not kind or line[1] == kind]


def test_table_agrees_with_numpy(stub, search):
    grid = ('--weight-decay', '0.05', '0.5', '--seeds', '0', '1', '2', '--jobs', '3')
    status, out, err = search(*grid, lr='1e-1 0.2', env=dict(STUB_SECONDS='0'))
    assert status == 0, err
    table = (stub / 'search/grid_search.md').read_text()
    expected, everything = [], []
    for lr in (0.1, 0.2):
        for wd in (0.05, 0.5):
            values = np.array([80 + 10 * lr - wd + 0.37 * seed for seed in range(3)])
            everything += [*values]
            expected.append(
                f'| {lr:g} | {wd:g} | 3 of 3 '
                f'| {values.mean():.2f} ± {values.std():.2f} | {values.max():.2f} |'
            )
    assert table.splitlines()[4:8] == expected
    assert f'Best: {max(everything):.2f} (lr 0.2, weight decay 0.05, seed 2)' in table
    whole = f'{np.mean(everything):.2f} ± {np.std(everything):.2f}'
    assert f'Whole grid: {whole} over 12 runs' in table
    assert whole in out
    # The report has a row for the search, and one for each run.
    runs, problems = find_runs([stub / 'search'])
    assert problems == [] and len(runs) == 13
    (grid,) = (run for run in runs if run.kind == 'grid search')
    assert grid.metrics['accuracy/top1'] == pytest.approx(max(everything))
    assert grid.metrics['std'] == pytest.approx(np.std(everything))
    assert grid.settings == {'lr': 0.2, 'weight decay': 0.05, 'seed': 2}


def start(stub: Path, *more: str, seconds: float) -> subprocess.Popen:
    """Start the tool as a process of its own, on runs that take so long."""
    return subprocess.Popen(
        [sys.executable, tool.__file__, *arguments(stub, *more)],
        env=os.environ | dict(STUB_SECONDS=str(seconds)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # What was started in the background ignores it, and passes that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


@pytest.mark.slow
def test_killed_and_restarted_ends_with_the_same_table(stub, search):
    assert search('--seeds', '0', '1', work_dir='unbroken')[0] == 0
    log = stub / 'tools/attempts.txt'
    log.unlink()

    process = start(stub, '--seeds', '0', '1', seconds=1.5)
    # In the middle of the third run, with nobody left to note its end.
    wait_for(lambda: log.is_file() and len(attempts(stub, 'new')) == 3)
    process.kill()
    process.communicate()
    # That run goes on alone, and a second search keeps away from it.
    status, _, err = search('--seeds', '0', '1')
    assert status == 1
    assert re.search(r'still at work here \(process groups: \d+\)', err)
    wait_for(lambda: search('--seeds', '0', '1', '--dry-run')[1].count('# fin') == 3)

    wait_for(lambda: search('--seeds', '0', '1')[0] == 0)  # as soon as it let go
    assert len(attempts(stub, 'new')) == len(set(attempts(stub))) == 6
    tables = [stub / name / 'grid_search.md' for name in ('unbroken', 'search')]
    assert tables[0].read_text() == tables[1].read_text()
    status, out, _ = search('--seeds', '0', '1')
    assert status == 0 and '6 of 6 runs are finished' in out
    assert len(attempts(stub, 'new')) == 6


@pytest.mark.slow
@pytest.mark.parametrize('resume', [False, True])
def test_interrupted_search_stops_its_runs(stub, search, resume):
    more = ['--jobs', '2', *(['--resume'] if resume else [])]
    process = start(stub, *more, seconds=100)
    checkpoints = [stub / f'search/lr{lr}/epoch_1.pth' for lr in (0.1, 0.2)]
    wait_for(lambda: all(path.is_file() for path in checkpoints))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert 'goes on from the runs that are finished' in said
    assert '# finished' not in search('--dry-run')[1]

    # Had a run survived, it would hold the lock.
    status, _, err = search(*more)
    assert status == 0, err
    assert sorted(attempts(stub, 'end')) == ['lr0.1', 'lr0.2', 'lr0.3']
    assert sorted(attempts(stub, 'resumed')) == (['lr0.1', 'lr0.2'] if resume else [])
    # Started anew, nothing of the first attempt is left.
    starts = list((stub / 'search/lr0.1').glob('*/vis_data'))
    assert len(starts) == 1 + resume


def test_failed_runs_are_reported_and_the_rest_goes_on(stub, search):
    status, out, _ = search(env=dict(STUB_FAILS='0.1', STUB_SILENT='0.3'))
    assert status == 1
    log = stub / 'search/logs/lr0.1.log'
    assert f'the loss is not finite at step 3 ({log})' in out
    assert 'lr0.3 failed, ended without a value accuracy/top1' in out
    rows = (stub / 'search/grid_search.md').read_text().splitlines()[4:7]
    assert [row.split(' | ')[2:] for row in rows] == [
        ['0 of 1', '—', '— |'],
        ['1 of 1', '82.00 ± 0.00', '82.00 |'],
        ['0 of 1', '—', '— |'],
    ]
    # The cause removed, only what failed is repeated.
    assert search()[0] == 0
    assert attempts(stub, 'new') == ['lr0.1', 'lr0.2', 'lr0.3', 'lr0.1', 'lr0.3']
    assert log.read_text().count('$ ') == 2  # both attempts are kept


def test_another_config_is_refused(stub, search):
    assert search(lr='0.1')[0] == 0
    status, _, err = search('--cfg-options', 'train_cfg.max_epochs=3', lr='0.1')
    assert status == 1 and 'Name another folder' in err
    assert len(attempts(stub, 'new')) == 1
    # Unless what is there may go.
    status, *_ = search('--force', '--cfg-options', 'train_cfg.max_epochs=3', lr='0.1')
    assert status == 0
    assert len(attempts(stub, 'new')) == 2


@pytest.mark.parametrize(
    'lr, message',
    [
        ('fast', "--lr: 'fast' is not a number of 0 or more"),
        ('1e-4,3e-4', "--lr: '1e-4,3e-4' is not a number"),
        ('nan', "--lr: 'nan' is not a number"),
        ('-1', 'no value is left'),
        ('', 'nothing to search'),
    ],
)
def test_values_that_are_not_numbers_are_named(stub, search, lr, message):
    status, _, err = search(lr=lr)
    assert status == 2 and message in err
    assert not (stub / 'search').exists()


def test_the_rest_of_the_grid_goes_on(stub, search):
    status, out, err = search('--seeds', '0', '1.5', lr='0.1 fast 0.3')
    assert "--lr: 'fast' is not a number" in err
    assert "--seeds: '1.5' is not a number" in err
    assert attempts(stub, 'end') == ['lr0.1_seed0', 'lr0.3_seed0']
    assert status == 1  # not all that was asked for


def test_configs_that_cannot_be_searched_are_named(stub, search):
    config = stub / 'config.py'
    config.write_text("val_evaluator = dict(type='Accuracy')")
    assert 'no optim_wrapper.optimizer' in search()[2]
    config.write_text(CONFIG.replace('Accuracy', 'MyMetric'))
    assert 'Name the value to compare with --metric' in search()[2]
    config.unlink()
    status, _, err = search()
    assert status == 1 and 'config.py: no such config.' in err


def test_a_dry_run_prints_the_commands(stub, search):
    """What --dry-run prints is what train.py, dist_train.sh, slurm_train.sh take."""
    options = ['--cfg-options', 'model.checkpoint=my file.pth', 'a.b=[1,2]']
    (line,) = search('--dry-run', '--seeds', '7', *options, lr='1e-05')[1].splitlines()
    parts = shlex.split(line)
    assert parts[parts.index('--cfg-options') + 1 :] == [
        'model.checkpoint=my file.pth',
        'a.b=[1,2]',
        'optim_wrapper.optimizer.lr=1e-05',
        'randomness.seed=7',
    ]
    folder = str(stub / 'search/lr1e-05_seed7')
    assert f'train.py {stub}/config.py --work-dir {folder} ' in line
    assert not (stub / 'search').exists()

    line = search('--dry-run', '--gpus', '4', lr='0.1')[1]
    assert f'bash {stub}/tools/dist_train.sh {stub}/config.py 4 --work-dir' in line
    slurm = ['--launcher', 'slurm', '--partition', 'big', '--gpus', '4']
    lines = search('--dry-run', *slurm, lr='0.1 0.2')[1].splitlines()
    assert f'slurm_train.sh big config_lr0.1 {stub}/config.py {stub}/search' in lines[0]
    assert 'GPUS=4' in lines[0]
    ports = {re.search(r'MASTER_PORT=(\d+)', line)[1] for line in lines}
    assert len(ports) == 2
    other = search('--dry-run', *slurm, lr='0.1 0.2', work_dir='other')[1]
    ports |= {re.search(r'MASTER_PORT=(\d+)', line)[1] for line in other.splitlines()}
    assert len(ports) == 4 and all(10000 <= int(port) < 30000 for port in ports)
    assert '--partition' in search('--launcher', 'slurm')[2]


def test_slurm_jobs_run_through_srun(stub, search):
    """Through slurm_train.sh and an srun that runs what it is given."""
    srun = stub / 'bin/srun'
    srun.parent.mkdir()
    srun.write_text(
        '#!/bin/bash\necho "$@" >> "$(dirname "$0")/asked"\n'
        'while [[ $1 == --* ]]; do shift; done\nexec "$@"\n'
    )
    srun.chmod(0o755)
    path = dict(PATH=f'{srun.parent}:{os.environ["PATH"]}')
    slurm = ['--launcher', 'slurm', '--partition', 'big', '--gpus', '2']
    status, out, err = search(*slurm, lr='0.1 0.2', env=path)
    assert status == 0, out + err
    assert sorted(attempts(stub, 'end')) == ['lr0.1', 'lr0.2']
    asked = (srun.parent / 'asked').read_text()
    assert '--partition=big --job-name=config_lr0.1 --gres=gpu:2 --ntasks=2' in asked


def test_runs_share_the_gpus_out(search, monkeypatch):
    monkeypatch.setattr(tool, 'visible_devices', lambda: list('34567'))
    lines = search('--dry-run', '--jobs', '2', '--gpus', '2')[1].splitlines()
    devices = [re.search(r'CUDA_VISIBLE_DEVICES=(\S+)', line)[1] for line in lines]
    assert devices == ['3,4', '5,6', '3,4']
    status, _, err = search('--jobs', '3', '--gpus', '2')
    assert status == 1 and 'need 6 GPUs; 5 are visible' in err


REAL = """
default_scope = 'mmpretrain'
model = dict(
    type='ImageClassifier',
    backbone=dict(type='LeNet5', num_classes=2),
    head=dict(type='ClsHead', loss=dict(type='CrossEntropyLoss')),
)
data_preprocessor = dict(mean=[127.5], std=[127.5])
pipeline = [
    dict(type='LoadImageFromFile', color_type='grayscale'),
    dict(type='Resize', scale=32),
    dict(type='PackInputs'),
]
dataset = dict(type='CustomDataset', data_root={root!r}, pipeline=pipeline)
train_dataloader = dict(
    batch_size=4, dataset=dataset, sampler=dict(type='DefaultSampler', shuffle=True)
)
val_dataloader = dict(
    batch_size=4, dataset=dataset, sampler=dict(type='DefaultSampler', shuffle=False)
)
val_evaluator = dict(type='Accuracy', topk=(1,))
val_cfg = dict()
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=1.0))
train_cfg = dict(by_epoch=True, max_epochs=2)
"""


@pytest.mark.slow
def test_a_real_training_is_searched_and_reported(tmp_path):
    """One run through mmdtm's own tools/train.py."""
    for label, grey in (('dark', 30), ('light', 220)):
        for n in range(6):
            path = tmp_path / f'data/{label}/{n}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new('L', (32, 32), grey + 2 * n).save(path)
    (tmp_path / 'lenet.py').write_text(REAL.format(root=str(tmp_path / 'data')))
    work_dir = tmp_path / 'search'
    status = tool.main(
        [
            *(str(tmp_path / 'lenet.py'), '--work-dir', str(work_dir)),
            *('--lr', '0.05', '--weight-decay', '1e-4', '--seeds', '3'),
        ]
    )
    log = (work_dir / 'logs/lr0.05_wd0.0001_seed3.log').read_text()
    assert status == 0, log
    runs, problems = find_runs([work_dir])
    assert problems == []
    (run,) = (run for run in runs if run.kind == 'fine-tuning')
    assert run.finished and run.progress == '2 of 2 epochs'
    assert run.settings == {'lr': 0.05, 'weight decay': 1e-4, 'seed': 3}
    assert [x for x, _ in run.curves['accuracy/top1']] == [1, 2]
    value = run.metrics['accuracy/top1']
    assert f'accuracy/top1: {value:.4f}' in log.splitlines()[-1] and run.seconds > 0
