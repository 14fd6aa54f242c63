"""The command ``mmdtm``."""

import os
import sys
from unittest import mock

import pytest
from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer
from tiny_run import ROOT, forget_new, write_config

import mmdtm.prepare  # noqa: F401
from mmdtm import cli, hub


def run(*words) -> None:
    with forget_new(DefaultScope, MessageHub, MMLogger, Visualizer):
        cli.main([*map(str, words)])


def test_configs_are_listed_with_their_titles(capsys):
    run('configs', 'finetune/*')
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        name for name in hub.config_names() if name.startswith('finetune/')
    ]
    assert 'Fine-tuning of a DTM ViT-B/16 on ImageNet-1K, 100 epochs.' in lines[0]


@pytest.mark.parametrize('name', hub.config_names()[::6])
def test_a_copied_config_is_the_same_elsewhere(name, tmp_path):
    run('configs', '--copy', name, tmp_path / 'mine.py')
    copy = Config.fromfile(tmp_path / 'mine.py')
    assert copy.to_dict() == hub.get_config(name).to_dict()


def test_a_copy_replaces_nothing(tmp_path):
    (tmp_path / 'mine.py').write_text('mine')
    with pytest.raises(SystemExit, match='error: .*mine.py'):
        run('configs', '--copy', 'dtm_vit-b_300e', tmp_path / 'mine.py')
    assert (tmp_path / 'mine.py').read_text() == 'mine'


def test_unknown_config_is_one_message():
    for words in (('configs', '--path'), ('print-config',)):
        with pytest.raises(SystemExit, match='^error: .*mean dtm_vit-b_300e'):
            run(*words, 'dtm_vit-b_30e')


def test_configs_are_compared(capsys):
    run('print-config', 'dtm_vit-b_300e', 'baseline/token-wise_vit-b_300e')
    lines = capsys.readouterr().out.splitlines()
    assert "- model.morphing.type = 'BipartiteMorphing'" in lines
    assert "+ model.morphing.type = 'IdentityMorphing'" in lines
    assert all('.morphing.' in line for line in lines)


def test_a_config_is_printed_with_what_it_inherits(capsys, tmp_path):
    run('print-config', 'dtm_vit-s_300e', '--cfg-options', 'train_cfg.max_epochs=7')
    (tmp_path / 'printed.py').write_text(capsys.readouterr().out)
    expected = hub.get_config('dtm_vit-s_300e')
    expected.train_cfg.max_epochs = 7
    assert Config.fromfile(tmp_path / 'printed.py').to_dict() == expected.to_dict()


@pytest.mark.slow
def test_train_and_compare_its_folder(tmp_path, capsys):
    config = write_config(
        tmp_path, "default_hooks = dict(run_record=dict(type='RunRecordHook'))"
    )
    work = tmp_path / 'work'
    run('train', config, '--work-dir', work, '--cfg-options', 'train_cfg.max_epochs=1')
    assert (work / 'epoch_1.pth').exists()
    capsys.readouterr()
    run('print-config', work, config)
    lines = capsys.readouterr().out.splitlines()
    assert {'- train_cfg.max_epochs = 1', '+ train_cfg.max_epochs = 2'} <= {*lines}


def test_gpus_start_the_script_of_several_processes():
    with mock.patch.object(os, 'execvp', side_effect=SystemExit) as executed:
        with pytest.raises(SystemExit):
            run('test', 'a', 'b.pth', '--gpus', 2, '--out', 'c.json')
    script = str(ROOT / 'tools/dist_test.sh')
    words = ['bash', script, 'a', 'b.pth', '2', '--out', 'c.json']
    assert os.path.samefile(executed.call_args.args[1][1], script)
    assert executed.call_args.args[1][2:] == words[2:]
    assert os.environ['PYTHON'] == sys.executable
