"""The chains behind the paper's tables: what they are, and what counts as done."""

import json
import shlex
from pathlib import Path

import pytest
from fake_runs import accuracy_rows, epoch_rows, write_logs, write_record
from tiny_run import load_tool

from mmdtm.report.paper import paper_tables
from mmdtm.reproduce import FIGURES, ROOT, Plan, card_of

FIXED, FINETUNE = 'ablation/fixed-98_vit-b_300e', 'finetune/dtm_vit-b_100e_in1k'
CHAIN = [FIXED, f'{FIXED}/{FINETUNE}', f'{FIXED}/{FINETUNE}/test', 'report']
TARGETS = [*paper_tables(), *FIGURES]


@pytest.fixture(scope='module')
def tool():
    return load_tool('reproduce.py')


def plan_of(root: Path, target: str, *words: str, **options) -> Plan:
    plan = Plan(root, **options)
    plan.add(target, words)
    plan.add_report()
    return plan


@pytest.mark.parametrize('smoke', [False, True])
@pytest.mark.parametrize('target', TARGETS)
def test_every_row_has_a_chain(tmp_path, target, smoke):
    plan = plan_of(tmp_path, target, smoke=smoke)
    made: set[str] = set()
    for name, step in plan.steps.items():
        assert set(step.needs) <= made, 'a step before what it needs'
        made.add(name)
        program = step.command[1 if step.command[0] == 'python' else 0]
        assert (ROOT / program).is_file()
        if name != 'report':
            assert step.lacks()  # in an empty folder
    for cell in plan.cells:  # each value's last step, or its test, is there
        chain = '/'.join(cell.chain)
        tools = {'table1', 'table11'} & made
        assert {chain, f'{chain}/test'} & made or tools, cell


def test_commands_are_those_of_the_cards(tmp_path):
    plan = plan_of(tmp_path, '8', 'not', 'dynamic')
    assert list(plan.steps) == CHAIN
    pretrain, finetune, test, _ = (step.command for step in plan.steps.values())
    folder = tmp_path / FIXED
    assert pretrain == [*shlex.split(card_of(FIXED).command), '--work-dir', str(folder)]
    card = card_of(FINETUNE).command.replace(
        'PRETRAINED.pth', f'{folder}/epoch_300.pth'
    )
    place = ['--work-dir', str(folder / FINETUNE)]
    assert [word for word in finetune if word not in place] == shlex.split(card)
    last = str(folder / FINETUNE / 'epoch_100.pth')
    assert test[:4] == ['tools/dist_test.sh', f'configs/{FINETUNE}.py', last, '8']
    two = plan_of(tmp_path, '8', 'not', 'dynamic', gpus=2).steps[FIXED].command
    assert two[2] == '2'


def test_a_grid_is_searched_for_tables_6_and_7(tmp_path):
    plan = plan_of(tmp_path, '6', 'DTM', 'CUB')
    search = plan.steps['dtm_vit-b_300e/transfer/dtm_vit-b_100e_cub200'].command
    assert '--lr' in search and 'PRETRAINED.pth' not in ' '.join(search)
    assert f'{tmp_path}/dtm_vit-b_300e/epoch_300.pth' in search[-1]


def finish(folder: Path, *chain: str, **record) -> None:
    """A run of two planned epochs that is done."""
    write_record(folder, 'fine-tuning', *chain, **record)
    write_logs(folder, epoch_rows([1.0, 0.5], 1), accuracy_rows([1.0, 2.0]))
    for name in ('epoch_300.pth', 'epoch_100.pth'):
        (folder / name).touch()


def state(tool, root: Path) -> list[str]:
    """Names of the steps of a chain that are to do."""
    return list(tool.unfinished(plan_of(root, '8', 'not', 'dynamic')))


def test_what_is_done_is_told_by_records(tool, tmp_path):
    assert state(tool, tmp_path) == CHAIN
    finish(tmp_path / CHAIN[0], FIXED, id='first')
    assert state(tool, tmp_path) == CHAIN[1:]
    parent = dict(id='first', config=FIXED, changes={}, parent=None)
    finish(tmp_path / CHAIN[1], FINETUNE, id='second', parent=parent)
    assert state(tool, tmp_path) == CHAIN[2:]
    start = tmp_path / CHAIN[2] / '20260101_120000'
    tested = dict(id='second', config=FINETUNE, changes={}, parent=parent)
    write_record(start, 'fine-tuning', FINETUNE, test=True, parent=tested)
    (start / f'{start.name}.json').write_text('{"accuracy/top1": 84.0}')
    assert state(tool, tmp_path) == ['report']
    # Pre-trained anew: what follows is of another run.
    finish_again = json.loads((tmp_path / FIXED / 'run.json').read_text())
    finish_again['id'] = 'other'
    (tmp_path / FIXED / 'run.json').write_text(json.dumps(finish_again))
    assert state(tool, tmp_path) == CHAIN[1:]


def test_what_was_broken_off_is_resumed(tmp_path):
    folder = tmp_path / FIXED
    write_record(folder, 'pre-training', FIXED, loop=dict(max_epochs=300))
    write_logs(folder, epoch_rows([1.0, 0.5], 1), [])
    step = plan_of(tmp_path, '8', 'not', 'dynamic').steps[FIXED]
    assert '--resume' not in step.to_run()  # nothing to resume from
    (folder / 'epoch_1.pth').touch()
    assert 'unfinished' in step.lacks() and '--resume' in step.to_run()


@pytest.mark.parametrize(
    'record', [dict(smoke=True), dict(config='x'), dict(changes={'model.a': 1})]
)
def test_another_run_is_not_written_over(tmp_path, record):
    finish(tmp_path / FIXED, FIXED, **record)
    step = plan_of(tmp_path, '8', 'not', 'dynamic').steps[FIXED]
    with pytest.raises(ValueError, match='holds another run.*--work-dir'):
        step.lacks()


def test_unknown_rows_are_named(tool, tmp_path):
    expected = "no row or column with the words 'nonsense'.*baseline"
    with pytest.raises(SystemExit, match=expected):
        tool.main(['8', 'nonsense', '--work-dir', str(tmp_path)])


def test_commands_are_printed_as_a_script(tool, tmp_path, capsys):
    finish(tmp_path / FIXED, FIXED)
    assert tool.main(['8', 'not', 'dynamic', '--work-dir', str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(': done') and lines[1].startswith('# tools/dist_train.sh')
    assert lines[3].startswith('tools/dist_train.sh configs/finetune/')


@pytest.mark.slow
def test_a_chain_runs_through_and_is_not_repeated(tool, tmp_path, capsys):
    command = ['2', 'downsampling', '--run', '--smoke', '--work-dir', str(tmp_path)]
    assert tool.main(command) == 0, capsys.readouterr().out
    first = capsys.readouterr().out
    assert '(smoke)' in first and '68.8 (-2.1)' in first
    content = json.loads((tmp_path / 'report/report.json').read_text())
    (cell,) = (cell for cell in content['paper'] if cell['value'] == 68.8)
    assert cell['runs'] == ['/'.join(cell['chain'])]
    assert tool.main(command) == 0
    assert '3 of 4 steps were done before' in capsys.readouterr().out
