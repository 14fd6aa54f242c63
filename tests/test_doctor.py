"""What stops a run is found before it starts, in one message."""

import re
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from tiny_run import write_config

from mmdtm import cli, doctor, hub
from mmdtm.models import timm_models
from mmdtm.models.target_generators import openclip_generator
from mmdtm.smoke import shrink_model


def run(*words) -> None:
    cli.main([*map(str, words)])


def draw(folder, number: int) -> None:
    folder.mkdir(parents=True)
    for i in range(number):
        Image.new('RGB', (8, 8)).save(folder / f'{i}.png')


def pretraining(root, pretrained='nowhere.pt'):
    cfg = hub.get_config('dtm_vit-s_300e')
    cfg.train_dataloader.dataset.data_root = str(root)
    cfg.model.target_generator.pretrained = pretrained
    return cfg


def test_data_come_before_the_teacher(tmp_path):
    with pytest.raises(FileNotFoundError, match=f'{tmp_path}/train is missing'):
        doctor.check_inputs(pretraining(tmp_path))


def test_fewer_images_than_a_step_takes(tmp_path, monkeypatch):
    draw(tmp_path / 'train/class', 64)
    message = r'train has 64 images, .* 128 in each process\. .*batch_size=16, .*DIR'
    with pytest.raises(ValueError, match=message):
        doctor.check_inputs(pretraining(tmp_path))
    cfg = pretraining(tmp_path)
    cfg.train_dataloader.batch_size = 32
    with pytest.raises(FileNotFoundError, match='nowhere.pt'):
        doctor.check_inputs(cfg)  # the batch is right, the teacher not yet
    assert doctor.check_loader(cfg.train_dataloader, 'data') == 32, 'no need to go on'
    assert doctor.check_loader(cfg.train_dataloader, 'data', count_all=True) == 64
    message = '64 images, .*32 in each of 3 processes.*batch_size=5,'
    for variable in ('SLURM_NTASKS', 'WORLD_SIZE'):
        with monkeypatch.context() as patch:
            patch.setenv(variable, '3')
            with pytest.raises(ValueError, match=message):
                doctor.check_inputs(cfg)


def test_validation_data_are_asked_for(tmp_path):
    cfg = hub.get_config('finetune/dtm_vit-s_300e_in1k')
    cfg.train_dataloader = None
    cfg.val_dataloader.dataset.data_root = str(tmp_path)
    with pytest.raises(FileNotFoundError, match=f'{tmp_path}/val is missing'):
        doctor.check_inputs(cfg)


def test_train_ends_with_the_message(tmp_path):
    words = ('--cfg-options', f'train_dataloader.dataset.data_root={tmp_path}')
    with pytest.raises(SystemExit, match='^error: .*/train is missing. Put the images'):
        run('train', 'dtm_vit-b_300e', '--work-dir', tmp_path / 'work', *words)


def test_checkpoint_that_is_not_there(tmp_path):
    cfg = hub.get_config('finetune/dtm_vit-s_300e_in1k')
    cfg.train_dataloader = cfg.val_dataloader = None
    cfg.model.backbone.init_cfg.checkpoint = 'gone.pth'
    with pytest.raises(FileNotFoundError, match='no checkpoint gone.pth'):
        doctor.check_inputs(cfg)
    cfg.model.backbone.init_cfg.checkpoint = ''
    with pytest.raises(FileNotFoundError, match='open which .* Name it: .*=PATH'):
        doctor.check_inputs(cfg)
    for there in (__file__, 'https://host/a.pth'):
        cfg.load_from = there
        doctor.check_inputs(cfg)


@pytest.mark.parametrize('part', ['target_generator', 'backbone'])
def test_weights_of_timm_are_asked_for(part, tmp_path, monkeypatch):
    """In the cache, then at the hub, for a teacher as for a student's start."""
    kinds = dict(target_generator='TimmGenerator', backbone='MaskedTimmViT')
    network = dict(type=kinds[part], model='vit_base_patch14_dinov2', pretrained=True)
    cfg = pretraining(tmp_path, pretrained=None)
    cfg.train_dataloader = None
    cfg.model[part] = network
    asked = []

    def find_file(repository, *names):
        asked.append((repository, names[0]))

    def require_network(tag):
        raise OSError(f'no route to {tag["hf_hub"]}')

    monkeypatch.setattr(timm_models, 'find_file', find_file)
    monkeypatch.setattr(timm_models, 'require_network', require_network)
    message = r'vit_base_patch14_dinov2 cannot .*no route to timm/vit_base.*lvd142m'
    with pytest.raises(FileNotFoundError, match=message):
        doctor.check_inputs(cfg)
    repository = 'timm/vit_base_patch14_dinov2.lvd142m'
    assert asked == [(repository, 'model.safetensors')]
    monkeypatch.setattr(timm_models, 'find_file', lambda *names: 'here')
    doctor.check_inputs(cfg)
    cfg.model[part]['pretrained'] = 'gone.safetensors'
    with pytest.raises(FileNotFoundError, match='gone.safetensors is missing'):
        doctor.check_inputs(cfg)
    cfg.model[part]['model'] = 'vit_base_patch14_dino2'
    with pytest.raises(ValueError, match='near it: vit_base_patch14_dinov2'):
        doctor.check_inputs(cfg)
    monkeypatch.setattr(timm_models, 'find_file', find_file)
    for model, there in (('test_vit', False), ('local-dir:mine', True)):
        cfg.model[part].update(model=model, pretrained=there)
        doctor.check_inputs(cfg)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ('model.backbone.drop_pth_rate=0', "'drop_pth_rate'. Did you mean drop_path"),
        ('model.morphing.type=BipartitMorphing', 'registered. Did you mean Bipartite'),
        ('train_dataloader.batchsize=8', "'batchsize'. Did you mean batch_size"),
        ('optim_wraper.x=1', 'optim_wraper is not .* Did you mean optim_wrapper'),
    ],
)
def test_unknown_names_and_what_is_near(options, message, capsys):
    with pytest.raises(SystemExit) as stop:
        run('doctor', 'dtm_vit-b_300e', '--cfg-options', options)
    assert stop.value.code == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert re.search(f'^error: .*{message}', line)


def test_options_of_another_library_are_its_own_matter():
    cfg = hub.get_config('dtm_vit-s_300e')
    student = dict(type='MaskedTimmViT', model='vit_small_patch16_224', qk_norm=True)
    cfg.model.backbone = student
    assert doctor.unknown_names(cfg) == []


@pytest.mark.slow
@pytest.mark.parametrize('name', hub.config_names()[::4])
def test_all_names_of_the_configs_are_known(name):
    assert doctor.unknown_names(hub.get_config(name)) == []


def test_a_run_that_can_start(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(openclip_generator, 'find_cached', lambda tag: 'here')
    draw(tmp_path / 'train/class', 130)
    words = ('--cfg-options', f'train_dataloader.dataset.data_root={tmp_path}')
    with pytest.raises(SystemExit) as stop:
        run('doctor', 'dtm_vit-b_300e', '--work-dir', tmp_path, *words)
    out = capsys.readouterr().out
    assert stop.value.code == 0, out
    assert 'train_dataloader: 130 images' in out and '(86 M parameters)' in out


def test_full_disk(tmp_path, monkeypatch):
    full = SimpleNamespace(free=10**9)
    monkeypatch.setattr(doctor.shutil, 'disk_usage', lambda folder: full)
    cfg = pretraining(tmp_path)
    with pytest.raises(ValueError, match='1.0 GB free, .*Free some'):
        doctor._say_disk(cfg, doctor._student(cfg))


def test_memory_is_what_the_forward_pass_keeps():
    """Of a backbone on the CPU, counted when torch saves it."""
    cfg = hub.get_config('dtm_vit-b_300e')
    shrink_model(cfg.model)
    student = doctor._student(cfg)
    small, large = (doctor._saved_bytes(student, n, cfg) for n in (1, 9))
    tokens, width, layers = 17, 48, 4
    per_image = (large - small) / 8
    # At least the input of each of a layer's four linear layers.
    least = 4 * layers * tokens * (3 * width + 96)
    assert least < per_image < 10 * least
    weights = 4 * sum(p.numel() for p in student.parameters())
    assert small < per_image + weights, 'weights are not activations'


def test_memory_adds_up(monkeypatch):
    monkeypatch.setattr(doctor, '_saved_bytes', lambda s, n, cfg: (1 + 2 * n) * 10**9)
    with torch.device('meta'):
        student = torch.nn.Linear(25_000, 5_000, bias=False)
    said = doctor._say_memory(hub.get_config('dtm_vit-b_300e'), student)
    assert '2.0 GB for weights' in said and '; 257.0 GB for activations' in said


def test_a_config_without_images_of_its_own(tmp_path):
    """Of somebody else's classes: what they say is taken as it is."""
    cfg = hub.get_config(write_config(tmp_path))
    doctor.check_inputs(cfg)
    assert doctor.unknown_names(cfg) == []
