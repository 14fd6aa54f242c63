"""Configs by name from anywhere; mmpretrain's own functions know them too."""

import mmpretrain
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmpretrain.registry import MODELS, TRANSFORMS
from PIL import Image

import mmdtm
import mmdtm.plugin  # noqa: F401
from mmdtm import hub
from mmdtm.smoke import shrink_model

NOWHERE = 'nowhere/clip.safetensors'


@pytest.fixture
def image_file(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'image.png')
    return str(tmp_path / 'image.png')


def small(name: str) -> Config:
    cfg = mmdtm.get_config(name)
    shrink_model(cfg.model)
    return cfg


def save_config(cfg: Config, path) -> str:
    cfg.dump(path)
    return str(path)


def build_trained(cfg: Config, path) -> torch.nn.Module:
    """An algorithm with weights away from their start, saved as a run saves it."""
    model = MODELS.build(cfg.model).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    return model


def test_base_by_name_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'mine.py').write_text(
        "_base_ = ['mmdtm::dtm_vit-b_300e.py']\n"
        'custom_hooks = [*_base_.custom_hooks]\n'
        "model = dict(backbone=dict(arch='small'))\n"
    )
    own = Config.fromfile('mine.py')
    plain = Config.fromfile(hub.shipped('configs') / 'dtm_vit-b_300e.py')
    plain.model.backbone.arch = 'small'
    assert own.to_dict() == plain.to_dict()


@pytest.mark.parametrize(
    'name',
    [
        'finetune/dtm_vit-b_100e_in1k',
        'mmdtm::finetune/dtm_vit-b_100e_in1k.py',
        'configs/finetune/dtm_vit-b_100e_in1k.py',
    ],
)
def test_a_name_may_be_written_in_three_ways(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = hub.find_config(name)
    assert found.samefile(hub.shipped('configs') / 'finetune/dtm_vit-b_100e_in1k.py')


def test_unknown_name(tmp_path):
    (tmp_path / 'mine.py').write_text("_base_ = 'mmdtm::dtm_vit-b_30e.py'\n")
    with pytest.raises(FileNotFoundError, match='mean .*dtm_vit-b_300e.*mmdtm configs'):
        Config.fromfile(tmp_path / 'mine.py')


def test_mmpretrain_lists_what_it_can_build():
    listed = set(mmpretrain.list_models())
    names = {n for n in hub.config_names() if 'upernet' not in n}
    assert names <= listed and 'release/dtm_vit-l_300e' in names
    assert 'dtm_vit-b_300e' in mmpretrain.list_models('*dtm*')
    classifiers = mmpretrain.ImageClassificationInferencer.list_models('*dtm*')
    assert 'finetune/dtm_vit-b_100e_in1k' in classifiers
    assert 'dtm_vit-b_300e' not in classifiers


def test_model_by_name_has_no_teacher(fast_init):
    model = mmpretrain.get_model('dtm_vit-s_300e')
    assert {name.split('.')[0] for name in model.state_dict()} == {'backbone'}


def test_features_of_a_pretraining(tmp_path, image_file):
    cfg = small('dtm_vit-b_300e')
    trained = build_trained(cfg, tmp_path / 'epoch_1.pth')
    cfg.model.target_generator.update(pretrained=NOWHERE, random_weights=False)
    file = save_config(cfg, tmp_path / 'mine.py')
    extractor = mmpretrain.FeatureExtractor(file, str(tmp_path / 'epoch_1.pth'))
    (found,) = extractor(image_file)[0]

    image = Image.open(image_file).resize((97, 73), Image.Resampling.BICUBIC)
    crop = torch.tensor(np.array(image)[4:68, 16:80]).permute(2, 0, 1).float()
    mean = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
    std = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
    with torch.no_grad():
        (expected,) = trained.backbone(((crop - mean) / std)[None])
    torch.testing.assert_close(found, expected[0])
    model = mmdtm.get_model(file, tmp_path / 'epoch_1.pth')
    (again,) = mmpretrain.FeatureExtractor(model)(image_file)[0]
    assert torch.equal(found, again)


@pytest.mark.parametrize('framework', ['mae-dtm', 'beitv2-dtm', 'byol-dtm'])
def test_features_of_other_frameworks_are_of_unmasked_images(framework, tmp_path):
    cfg = small(f'applicability/{framework}_vit-b_100e')
    trained = build_trained(cfg, tmp_path / 'epoch_1.pth')
    model = mmdtm.get_model(cfg, tmp_path / 'epoch_1.pth')
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        found, expected = model.extract_feat(images), trained.extract_feat(images)
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.equal(mine, theirs)


def test_classification(tmp_path, image_file):
    cfg = small('finetune/dtm_vit-b_100e_in1k')
    trained = build_trained(cfg, tmp_path / 'epoch_1.pth')
    file = save_config(cfg, tmp_path / 'mine.py')
    inferencer = mmpretrain.ImageClassificationInferencer(
        file, str(tmp_path / 'epoch_1.pth')
    )
    found = inferencer(image_file)[0]

    steps = cfg.test_dataloader.dataset.pipeline
    sample = Compose([TRANSFORMS.build(step) for step in steps])(
        dict(img_path=image_file, gt_label=0)
    )
    batch = {'inputs': [sample['inputs']], 'data_samples': [sample['data_samples']]}
    with torch.no_grad():
        (expected,) = trained.test_step(batch)
    np.testing.assert_allclose(found['pred_scores'], expected.pred_score, rtol=1e-5)


def test_pretrained_backbone_is_not_for_training():
    model = hub.get_model(small('dtm_vit-b_300e'))
    with pytest.raises(RuntimeError, match='no loss. Train with the config'):
        model(torch.zeros(1, 3, 64, 64), [], mode='loss')
