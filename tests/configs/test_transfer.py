"""The transfer configs on made miniatures in the official layouts and formats."""

import hashlib
import pickle
import re
from pathlib import Path

import mmpretrain  # noqa: F401
import numpy as np
import pytest
import torch
from miniatures import (
    MINIATURES,
    PALETTE,
    cifar10,
    cifar100,
    inat2018,
    nabirds,
    stanford_dogs,
)
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmpretrain.registry import DATASETS, MODELS
from tiny import ARCH, Payload

from mmdtm import doctor
from mmdtm.datasets import OfficialCIFAR10, OfficialCIFAR100
from mmdtm.engine.launch import build_runner

CONFIGS = Path(__file__).resolve().parents[2] / 'configs/transfer'
# Classes of the real data sets, as their publishers count them.
CLASSES = dict(nabirds=555, cub200=200, cifar10=10, cifar100=100)
CLASSES |= {'stanford-dogs': 120, 'inat2018': 8142}
CLASSES |= {'inat2019': 1010, 'inat2021-mini': 10000}


@pytest.fixture(scope='module', autouse=True)
def official(tmp_path_factory):
    """CIFAR's miniatures are the official files here: theirs are the digests."""
    root = tmp_path_factory.mktemp('official')
    cifar10(root), cifar100(root)
    patch = pytest.MonkeyPatch()
    for kind in (OfficialCIFAR100, OfficialCIFAR10):  # the second is the base
        for part in ('train_list', 'test_list'):
            files = [
                (name, root / kind.base_folder / name)
                for name, _ in getattr(kind, part)
            ]
            digests = [(n, hashlib.md5(f.read_bytes()).hexdigest()) for n, f in files]
            patch.setattr(kind, part, digests)
    yield
    patch.undo()


def load(name: str, root: Path) -> Config:
    """The config on the data under ``root``, with a model for tests."""
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    init_default_scope(cfg.default_scope)
    cfg.model.backbone.update(arch=ARCH, init_cfg=None)
    cfg.model.head.in_channels = 48
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = str(root)
        loader.update(batch_size=4, num_workers=0, persistent_workers=False)
    return cfg


def colour_of(batch: dict, preprocessor: torch.nn.Module) -> torch.Tensor:
    """RGB of each image's middle after the model's own preprocessing, undone."""
    data = preprocessor(batch, training=False)
    middle = data['inputs'][:, :, 112, 112]
    return middle * preprocessor.std.view(1, 3) + preprocessor.mean.view(1, 3)


def test_every_config_has_a_miniature():
    assert {path.stem for path in CONFIGS.glob('*.py')} == set(MINIATURES)


@pytest.mark.parametrize('name', MINIATURES)
def test_the_page_shows_the_official_layout(name, tmp_path):
    """docs/data.md has each name at the top of what the data set reads."""
    draw, *_ = MINIATURES[name]
    draw(tmp_path)
    root = Config.fromfile(CONFIGS / f'{name}.py').train_dataloader.dataset.data_root
    page = (CONFIGS.parents[1] / 'docs/data.md').read_text()
    (tree,) = re.findall(rf'^{root}\n((?:[├└].*\n)+)', page, re.M)
    shown = {line[4:].split()[0].split('/')[0] for line in tree.splitlines()}
    assert {path.name for path in tmp_path.iterdir()} <= shown


@pytest.mark.parametrize('name', MINIATURES)
def test_config_reads_the_official_layout(name, tmp_path):
    draw, num_train, num_test = MINIATURES[name]
    draw(tmp_path)
    cfg = load(name, tmp_path)
    for loader, number in (
        (cfg.train_dataloader, num_train),
        (cfg.val_dataloader, num_test),
    ):
        assert doctor.check_loader(loader, 'loader', count_all=True) == number
    assert cfg.model.head.num_classes == CLASSES[name.split('_')[-1]]
    model = MODELS.build(cfg.model)
    model.init_weights()

    val_loader = Runner.build_dataloader(cfg.val_dataloader)
    assert len(val_loader.dataset) == num_test
    assert cfg.test_dataloader == cfg.val_dataloader
    for batch in val_loader:
        labels = [int(sample.gt_label) for sample in batch['data_samples']]
        truth = torch.tensor([PALETTE[label] for label in labels]).float()
        assert (colour_of(batch, model.data_preprocessor) - truth).abs().max() < 4

    # The training split is the other images, with the same labels.
    as_val = {**cfg.train_dataloader.dataset, 'pipeline': cfg.test_pipeline}
    shown = DATASETS.build(as_val)
    assert len(shown) == num_train
    assert np.bincount(shown.get_gt_labels()).tolist() == [num_train // 4] * 4
    for item in shown:
        batch = dict(inputs=[item['inputs']], data_samples=[item['data_samples']])
        truth = torch.tensor(PALETTE[int(item['data_samples'].gt_label)])
        assert (colour_of(batch, model.data_preprocessor)[0] - truth).abs().max() < 4
    paths = [
        {dataset.get_data_info(i).get('img_path', i) for i in range(len(dataset))}
        for dataset in (shown, val_loader.dataset)
    ]
    if 'cifar' not in name:
        assert not paths[0] & paths[1]

    train_loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
    data = model.data_preprocessor(next(iter(train_loader)), training=True)
    assert data['inputs'].shape == (4, 3, 224, 224)
    loss = model(**data, mode='loss')['loss']
    loss.backward()
    # All classes alike at the start: ln C.
    assert loss.item() == pytest.approx(np.log(cfg.model.head.num_classes), rel=1e-3)

    if 'cifar' not in name:  # which is one file
        shown = DATASETS.build({**as_val, 'max_bad_fraction': 0.1})
        bad = Path(shown.get_data_info(5)['img_path'])
        bad.write_bytes(bad.read_bytes()[:400])
        assert len([*shown]) == num_train and shown.num_bad == 1


def run_config(name: str, tmp_path: Path) -> Config:
    cfg = load(name, tmp_path / 'data')
    cfg.update(work_dir=str(tmp_path / 'run'), launcher='none')
    cfg.visualizer.vis_backends = [dict(type='LocalVisBackend')]
    cfg.train_cfg.max_epochs, cfg.param_scheduler = 1, []
    return cfg


def test_part_of_the_classes_is_noticed(tmp_path):
    stanford_dogs(tmp_path / 'data')
    runner = build_runner(run_config('dtm_vit-b_100e_stanford-dogs', tmp_path))
    with pytest.raises(ValueError, match='have 4 classes, and .*model.head 120'):
        runner.train()


def test_class_names_are_the_publishers(tmp_path):
    nabirds(tmp_path / 'nabirds')
    birds = load('dtm_vit-b_100e_nabirds', tmp_path / 'nabirds')
    names = DATASETS.build(birds.val_dataloader.dataset).CLASSES
    assert names[1] == 'Oak Titmouse' and names[3] == 'Veery' and len(names) == 4

    inat2018(tmp_path / 'inat')
    inat = load('dtm_vit-b_100e_inat2018', tmp_path / 'inat')
    names = DATASETS.build(inat.val_dataloader.dataset).CLASSES
    assert names == ('Plantae/7477', 'Insecta/10', 'Aves/3', 'Fungi/512')

    stanford_dogs(tmp_path / 'dogs')
    dogs = load('dtm_vit-b_100e_stanford-dogs', tmp_path / 'dogs')
    names = DATASETS.build(dogs.val_dataloader.dataset).CLASSES
    assert names == ('Chihuahua', 'Japanese_spaniel', 'Maltese_dog', 'Pekinese')


@pytest.mark.parametrize('name', MINIATURES)
def test_missing_files_are_named_and_not_downloaded(name, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError('tried to download')

    monkeypatch.setattr('urllib.request.urlopen', refuse)
    monkeypatch.setattr(
        'mmpretrain.datasets.cifar.download_and_extract_archive', refuse
    )
    cfg = load(name, tmp_path)
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        DATASETS.build(cfg.train_dataloader.dataset)


def test_hostile_cifar_pickle_never_runs(tmp_path):
    cifar10(tmp_path)
    made = tmp_path / 'made'
    batch = dict(data=Payload(made), labels=[0])
    (tmp_path / 'cifar-10-batches-py/data_batch_2').write_bytes(
        pickle.dumps(batch, protocol=2)
    )
    cfg = load('dtm_vit-b_100e_cifar10', tmp_path)
    with pytest.raises(ValueError, match='data_batch_2 is not the official file'):
        DATASETS.build(cfg.val_dataloader.dataset)
    assert not made.exists()


@pytest.mark.parametrize('keep', [0, 100, 5000])
def test_a_cut_off_cifar_file_is_named(tmp_path, keep):
    cifar10(tmp_path)
    path = tmp_path / 'cifar-10-batches-py/test_batch'
    path.write_bytes(path.read_bytes()[:keep])
    cfg = load('dtm_vit-b_100e_cifar10', tmp_path)
    with pytest.raises(ValueError, match='test_batch is not the official file'):
        DATASETS.build(cfg.train_dataloader.dataset)


def test_nabirds_files_that_do_not_fit_together_are_named(tmp_path):
    nabirds(tmp_path)
    cfg = load('dtm_vit-b_100e_nabirds', tmp_path)
    split = tmp_path / 'train_test_split.txt'
    lines = split.read_text().splitlines()
    split.write_text('\n'.join(lines[1:]))
    with pytest.raises(ValueError, match='list different images .1 are not'):
        DATASETS.build(cfg.train_dataloader.dataset)
    split.write_text('\n'.join([*lines, 'lonely']))
    with pytest.raises(ValueError, match=r"train_test_split.txt:21: 'lonely' has no"):
        DATASETS.build(cfg.train_dataloader.dataset)


def test_a_list_of_dogs_that_is_no_matlab_file_is_named(tmp_path):
    stanford_dogs(tmp_path)
    (tmp_path / 'train_list.mat').write_bytes(b'not MATLAB at all')
    cfg = load('dtm_vit-b_100e_stanford-dogs', tmp_path)
    with pytest.raises(ValueError, match='train_list.mat is not a list of Stanford'):
        DATASETS.build(cfg.train_dataloader.dataset)


def test_damaged_inaturalist_annotations_are_named(tmp_path):
    inat2018(tmp_path)
    cfg = load('dtm_vit-b_100e_inat2018', tmp_path)
    path = tmp_path / 'train2018.json'
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    with pytest.raises(ValueError, match='train2018.json is not JSON'):
        DATASETS.build(cfg.train_dataloader.dataset)
    path.write_text('{"images": [], "info": {}}')
    with pytest.raises(ValueError, match='annotations, categories.*no labels'):
        DATASETS.build(cfg.train_dataloader.dataset)
    path.write_text(text.replace('"image_id": 1000', '"image_id": 7'))
    with pytest.raises(ValueError, match='train2018.json: an annotation names'):
        DATASETS.build(cfg.train_dataloader.dataset)
