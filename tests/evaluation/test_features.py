"""Features of frozen backbones, on class folders of plain colours."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmpretrain.registry import MODELS, TRANSFORMS
from tiny import COLOURS, draw_classes, loader_config
from tiny_run import run_processes
from torch import nn

import mmdtm.plugin  # noqa: F401
from mmdtm.evaluation.feature_probe import probe_features
from mmdtm.evaluation.features import build_loader, extract_features, pool
from mmdtm.smoke import shrink_model

CONFIGS = Path(__file__).parents[2] / 'configs'


def draw(root, split: str, images: int, colours=COLOURS) -> None:
    draw_classes(root / split, colours, images, fade=20)


def loader(root, split: str, images_per_class=None, **dataset):
    return build_loader(loader_config(root, split, **dataset), images_per_class)


class Mean(nn.Module):
    """A model whose feature is the image's mean colour."""

    class Backbone(nn.Module):
        def forward(self, x):
            assert not self.training
            return (x.mean((2, 3)),)

    def __init__(self):
        super().__init__()
        self.backbone = self.Backbone()
        self.data_preprocessor = lambda data: {
            'inputs': [data['inputs'].float() / 255, None]  # two views, as DTM's
        }


def test_one_vector_per_image_in_order(tmp_path):
    draw(tmp_path, 'train', 3)
    model = Mean().train()
    seen = []
    state = torch.get_rng_state()
    features = extract_features(model, loader(tmp_path, 'train'), seen.append)
    assert features.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    bgr = torch.eye(3).repeat_interleave(3, 0)
    shades = torch.tensor([255, 235, 215]).repeat(3)[:, None] / 255
    torch.testing.assert_close(features.vectors, bgr * shades)
    assert sum(seen) == 9
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)


def test_probe_learns_from_one_split_and_tests_on_the_other(tmp_path):
    draw(tmp_path, 'train', 3)
    draw(tmp_path, 'val', 2)
    train, val = loader(tmp_path, 'train'), loader(tmp_path, 'val')
    result = probe_features(Mean(), train, val, k=3)
    assert result['knn_top1'] == result['linear_top1'] == 100
    assert all(result[name] > 0 for name in ('features_s', 'knn_s', 'linear_s'))


def test_wrong_answers_are_counted(tmp_path):
    draw(tmp_path, 'train', 1)
    swapped = dict(COLOURS, red=COLOURS['blue'])  # the reds are blue
    draw(tmp_path, 'val', 1, swapped)
    train, val = loader(tmp_path, 'train'), loader(tmp_path, 'val')
    result = probe_features(Mean(), train, val)
    assert result['knn_top1'] == pytest.approx(200 / 3)
    assert result['linear_top1'] == pytest.approx(200 / 3)


def test_other_class_folders_are_refused(tmp_path):
    draw(tmp_path, 'train', 1)
    draw(tmp_path, 'val', 1, {'green': COLOURS['green'], 'red': COLOURS['red']})
    val = loader(tmp_path, 'val', classes_from='val')
    with pytest.raises(ValueError, match=r"(?s)train .*val .*only the first.*'blue'"):
        probe_features(Mean(), loader(tmp_path, 'train'), val)


def test_images_per_class_keeps_the_first_of_each(tmp_path):
    draw(tmp_path, 'train', 3)
    features = extract_features(Mean(), loader(tmp_path, 'train', 2))
    assert features.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert features.vectors.amax(1).mul(255).round().tolist() == [255, 235] * 3
    with pytest.raises(ValueError, match='an int at least 1'):
        loader(tmp_path, 'train', 0)


def test_patch_tokens_are_averaged_and_normalised_and_vectors_kept():
    tokens = torch.randn(2, 1 + 6, 5)
    mean = F.layer_norm(tokens[:, 1:].mean(1), (5,), eps=1e-6)
    torch.testing.assert_close(pool((tokens * 9, tokens), 1), mean)
    featmap = tokens[:, 1:].transpose(1, 2).unflatten(2, (2, 3))
    torch.testing.assert_close(pool(featmap), mean)
    vectors = torch.randn(2, 5)
    assert torch.equal(pool((vectors,)), vectors)
    with pytest.raises(ValueError, match=r'\(5,\)'):
        pool(torch.zeros(5))


def test_unlabelled_data_are_named(tmp_path):
    draw(tmp_path, 'train', 1)
    data = loader(tmp_path, 'train')
    data.dataset.pipeline.transforms[-1].transform = lambda results: {
        'inputs': torch.zeros(3, 16, 16),
        'data_samples': {},
    }
    data.collate_fn = lambda items: {
        key: [item[key] for item in items] for key in items[0]
    }
    with pytest.raises(ValueError, match='have no labels'):
        extract_features(Mean(), data)


def _share(rank: int, root: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2
    )
    try:
        features = extract_features(Mean(), loader(root, 'train'))
        result = probe_features(Mean(), loader(root, 'train'), loader(root, 'val'), k=3)
        torch.save((*features, result), folder / f'{rank}.pt')
        torch.distributed.barrier()  # neither leaves while the other receives
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_share_the_images_and_get_all_features(tmp_path):
    draw(tmp_path, 'train', 3)  # nine images: one process is padded
    draw(tmp_path, 'val', 1)
    run_processes(_share, [(rank, tmp_path, tmp_path) for rank in range(2)])
    alone = extract_features(Mean(), loader(tmp_path, 'train'))
    for rank in range(2):
        vectors, labels, result = torch.load(tmp_path / f'{rank}.pt')
        torch.testing.assert_close(vectors, alone.vectors)
        assert torch.equal(labels, alone.labels)
        assert result.get('knn_top1') == (100 if rank == 0 else None)


@pytest.mark.parametrize('name', ['mae', 'mae-dtm', 'beitv2-dtm', 'byol-dtm'])
def test_masked_models_see_whole_images(name, tmp_path):
    """Features are a function of the image: no mask is drawn for them."""
    draw(tmp_path, 'train', 2)
    cfg = Config.fromfile(CONFIGS / f'applicability/{name}_vit-b_100e.py').model
    shrink_model(cfg)
    model = MODELS.build(cfg)
    model.init_weights()
    # 64 pixels, as a shrunken model takes.
    data = loader(tmp_path, 'train')
    data.dataset.pipeline.transforms.insert(
        1, TRANSFORMS.build(dict(type='mmpretrain.Resize', scale=(64, 64)))
    )
    vectors = extract_features(model, data).vectors
    assert vectors.shape[0] == 6 and vectors.is_floating_point()
    torch.manual_seed(1)
    assert torch.equal(extract_features(model, data).vectors, vectors)
    width = model.backbone.embed_dims
    assert vectors.shape[1] == width
