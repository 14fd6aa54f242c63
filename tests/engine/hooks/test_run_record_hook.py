"""What a run writes down about itself, and what its checkpoints say of it."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from tiny_run import run_tool, write_config

from mmdtm import run_record
from mmdtm.engine.hooks.run_record_hook import RunRecordHook
from mmdtm.engine.run_description import describe_kind, describe_teachers
from mmdtm.io.checkpoints import read_checkpoint

HOOK = "\ndefault_hooks['run_record'] = dict(type='RunRecordHook')\n"


@pytest.fixture
def config(tmp_path):
    return write_config(tmp_path, HOOK)


def train(config, folder: Path, *args) -> dict:
    run_tool('train.py', config, '--work-dir', folder, *args)
    return json.loads((folder / 'run.json').read_text())


def lineage_on_disk(path: Path) -> dict:
    return read_checkpoint(path)['meta']['run']


@pytest.mark.slow
def test_a_run_starts_another(config, tmp_path):
    first = train(config, tmp_path / 'first')
    saved = lineage_on_disk(tmp_path / 'first/epoch_2.pth')
    assert saved['id'] == first['id'] and saved['parent'] is None
    assert saved['work_dir'] == str(tmp_path / 'first')

    # Neither the file's name nor its folder says where it is from.
    moved = (tmp_path / 'first/epoch_1.pth').rename(tmp_path / 'weights.pth')
    by_load = train(config, tmp_path / 'load', '--cfg-options', f'load_from={moved}')
    by_init = train(
        config,
        tmp_path / 'init',
        '--cfg-options',
        'model.backbone.init_cfg.type=Pretrained',
        'model.backbone.init_cfg.prefix=backbone.',
        f'model.backbone.init_cfg.checkpoint={moved}',
    )
    for second in (by_load, by_init):
        assert second['parent']['id'] == first['id'] != second['id']
        assert second['parent']['epoch'] == 1
        assert second['files'] == {
            str(moved): hashlib.sha256(moved.read_bytes()).hexdigest()
        }
        assert run_record.chain(second) == (str(config)[:-3],) * 2
    # One that goes on elsewhere goes on from the same ancestor.
    resumed = train(config, tmp_path / 'on', '--resume', tmp_path / 'load/epoch_1.pth')
    assert resumed['parent']['id'] == first['id'] != resumed['id']


@pytest.mark.slow
def test_resuming_adds_a_start_to_the_record(config, tmp_path):
    folder = tmp_path / 'run'
    first = train(config, folder, '--cfg-options', 'train_cfg.max_epochs=1')
    again = train(config, folder, '--resume')
    assert again['id'] == first['id'] and again['parent'] is None
    assert again['starts'][:1] == first['starts'] and len(again['starts']) == 2
    assert (first['changes'], again['changes']) == ({'train_cfg.max_epochs': 1}, {})
    anew = train(config, folder)
    assert anew['id'] != first['id'] and len(anew['starts']) == 1


def test_record_has_what_made_the_run_and_a_test_names_it(config, tmp_path):
    options = ['optim_wrapper.optimizer.lr=0.5', 'randomness.seed=3']
    record = train(config, tmp_path / 'run', '--cfg-options', *options)
    (start,) = record['starts']
    assert start['seed'] == 3 and 'optimizer.lr=0.5' in start['command']
    assert start['versions']['torch'] == torch.__version__
    # Of what the run loaded: with no teacher, neither timm nor open_clip.
    assert {'mmengine', 'mmcv', 'mmpretrain', 'numpy'} <= set(start['versions'])
    assert start['hardware']['processes'] == 1
    assert len(start['code'].get('commit', 40 * '0')) == 40
    assert record['kind'] == 'fine-tuning'
    assert record['changes'] == {'optim_wrapper.optimizer.lr': 0.5}
    assert record['full_config']['optim_wrapper']['optimizer']['lr'] == 0.5
    assert record['full_config']['model']['head']['in_channels'] == 32

    checkpoint, folder = tmp_path / 'run/epoch_2.pth', tmp_path / 'test'
    run_tool('test.py', config, checkpoint, '--work-dir', folder)
    (path,) = folder.glob('*/run.json')
    tested = json.loads(path.read_text())
    assert tested['test'] and tested['parent']['id'] == record['id']
    assert run_record.chain(tested) == (str(config)[:-3],)
    assert not (folder / 'run.json').exists()


def test_teachers_are_known_by_their_weights():
    from mmdtm.models.target_generators import OpenCLIPGenerator

    def teacher():
        return OpenCLIPGenerator(**OpenCLIPGenerator.smoke)

    one, same, other = teacher(), teacher(), teacher()
    other.teacher.load_state_dict(one.teacher.state_dict())
    with torch.no_grad():
        next(other.teacher.parameters()).flatten()[0] += 1e-3
    hashes = [
        describe_teachers(torch.nn.ModuleList([part]))[0]['weights_sha256']
        for part in (one, same, other)
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_checkpoints_of_others_have_no_lineage(tmp_path):
    files = [tmp_path / name for name in ('none.pth', 'text.pth', 'plain.pth')]
    files[1].write_text('no checkpoint')
    torch.save({'state_dict': {'a': torch.zeros(1)}}, files[2])
    assert [run_record.lineage_of(file) for file in files] == [None] * 3


def test_only_our_own_configs_have_short_names(tmp_path):
    ours = Path(run_record.__file__).parents[1] / 'configs/finetune/a_b.py'
    assert run_record.config_name(ours) == 'finetune/a_b'
    assert run_record.config_name(tmp_path / 'configs/x.py').startswith(str(tmp_path))


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ("# Mine.\n'Two lines.\\n\\nSecond.'\na = 1\n", ('Two lines.', '\nSecond.')),
        ('r"""\nBelow.\n"""', ('Below.', '')),
        ('a = 1\n"""Not at the top."""\n', ('', '')),
    ],
)
def test_a_config_says_what_it_is(tmp_path, text, said):
    file = tmp_path / 'config.py'
    file.write_text(text)
    assert run_record.config_docstring(str(file)) == said
    assert run_record.config_docstring(file.with_suffix('.yaml')) == ('', '')


@pytest.mark.parametrize(
    ('name', 'kind'),
    [
        ('dtm_vit-s_300e', 'pre-training'),
        ('finetune/dtm_vit-s_300e_in1k', 'fine-tuning'),
        ('linear_probe/dtm_vit-b_50e_in1k', 'linear probe'),
        ('segmentation/upernet_dtm_vit-b_160k_ade20k-512x512', 'segmentation'),
    ],
)
def test_kind_is_that_of_the_model(name, kind):
    from mmengine.registry import init_default_scope
    from mmpretrain.registry import MODELS

    from mmdtm.smoke import shrink_model

    configs = Path(run_record.__file__).parents[1] / 'configs'
    cfg = Config.fromfile(configs / f'{name}.py')
    hook = cfg.default_hooks.run_record.type
    assert hook.split('.')[-1] == RunRecordHook.__name__
    init_default_scope(cfg.default_scope)
    shrink_model(cfg.model)
    scope = 'mmseg' if kind == 'segmentation' else 'mmpretrain'
    with MODELS.switch_scope_and_registry(scope) as registry:
        assert describe_kind(registry.build(cfg.model)) == kind
