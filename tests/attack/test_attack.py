"""A sample of `make attack`, and that it notices what is lost."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from campaign import table
from runs import differences, newest_step

HERE = Path(__file__).parent
SAMPLE = (
    'kills: pre-training, seed 0',
    'disk: files over a limit for three steps',
    'disk: two runs in one folder',
    'process: SIGTERM to the only process',
    'process: SIGINT to rank 1 of 2',
    'process: Ctrl-C twice',
    'process: rank 1 of 2 stopped',
    'process: worker hangs',
    'process: image hangs without workers',
    'input: image: a pipe',
    'input: a job record cut short',
)


@pytest.mark.slow
def test_a_sample_of_each_kind_holds(tmp_path):
    command = [sys.executable, HERE / 'campaign.py', '--kills', '2', '--jobs', '1']
    command += ['--work-dir', tmp_path, '--only', '|'.join(map(re.escape, SAMPLE))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    record = tmp_path / 'outcomes_seed0.jsonl'
    names = [json.loads(line)[0] for line in record.read_text().splitlines()]
    assert names == list(SAMPLE)
    rows = done.stdout.split('tried   held   lost\n')[1].splitlines()
    assert [row.split()[-3:] for row in rows if row.startswith('kills')] == [
        ['2', '2', '0']
    ]


@pytest.fixture
def two_runs(tmp_path):
    """Two folders with the same losses and checkpoint."""
    folders = tmp_path / 'one', tmp_path / 'other'
    for folder in folders:
        folder.mkdir()
        (folder / 'losses_0.txt').write_text('1 0x1p+0\n2 0x1p+1\n')
        save(folder, torch.ones(3))
    return folders


def save(folder: Path, weight: torch.Tensor, step: int = 2) -> None:
    path = folder / f'iter_{step}.pth'
    content = dict(
        state_dict=dict(weight=weight),
        optimizer=dict(state={}),
        param_schedulers=[dict(last=1)],
        meta=dict(iter=step),
    )
    torch.save(content, path)
    (folder / 'last_checkpoint').write_text(str(path))


def test_differences_in_the_last_bit_are_noticed(two_runs):
    one, other = two_runs
    assert differences(one, other) == ''
    save(one, torch.ones(3).nextafter(torch.zeros(3)))
    assert differences(one, other) == 'another state_dict'
    save(one, torch.ones(3))
    lines = one / 'losses_0.txt'
    for text, problem in (
        ('1 0x1p+0\n1 0x1.0000000000001p+0\n2 0x1p+1\n', 'other losses in steps [1]'),
        ('1 0x1p+0\n', 'no loss of steps [2]'),
    ):
        lines.write_text(text)
        assert differences(one, other) == f'rank 0: {problem}'


def test_lost_checkpoints_are_noticed(tmp_path):
    assert newest_step(tmp_path) == 0
    for step in (1, 2):
        save(tmp_path, torch.ones(3), step)
    assert newest_step(tmp_path) == 2
    half = (tmp_path / 'iter_1.pth').read_bytes()[:200]
    (tmp_path / 'iter_1.pth').write_bytes(half)
    with pytest.raises(ValueError, match='iter_1.pth is not loaded'):
        newest_step(tmp_path)
    (tmp_path / 'iter_1.pth').unlink()
    (tmp_path / 'iter_2.pth').unlink()
    with pytest.raises(FileNotFoundError, match='last_checkpoint names'):
        newest_step(tmp_path)


def test_the_table_counts_and_names_what_is_lost():
    lines = table(
        [('kills', 'a', ''), ('kills', 'b', 'step 3'), ('disk: full', 'c', '')]
    ).splitlines()
    assert [line.split()[-3:] for line in lines[1:4]] == [
        ['2', '1', '1'],
        ['1', '1', '0'],
        ['3', '2', '1'],
    ]
    assert lines[4:] == ['LOST: kills: b: step 3']
