"""Table 12 read back from what the pre-training configs build."""

import numpy as np
import pytest
import torch
from made_data import CONFIGS, load, rates
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS, TRANSFORMS
from torch import nn

from mmdtm.engine.launch import fit_to_device
from mmdtm.morphing import DynamicSchedule
from mmdtm.report.cards import read_card

# Table 12: width, layers, heads, FFN width, layer scale.
TABLE_12 = {
    's': (384, 12, 6, 1536, 0.1),
    'b': (768, 12, 12, 3072, 0.1),
    'l': (1024, 24, 16, 4096, 1e-5),
}


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


@pytest.fixture(params=TABLE_12)
def size(request) -> str:
    return request.param


def build_backbone(cfg) -> nn.Module:
    """The student without its numbers: no value here depends on them."""
    with torch.device('meta'):
        return MODELS.build(cfg.model.backbone)


class Student(nn.Module):
    """What the optimizer sees of a DTM: backbone and head."""

    def __init__(self, cfg) -> None:
        super().__init__()
        self.backbone = build_backbone(cfg)
        head = dict(cfg.model.head, in_channels=self.backbone.embed_dims)
        with torch.device('meta'):
            self.head = MODELS.build(dict(head, out_channels=512))


def test_the_architecture_is_table_12s(size):
    width, depth, heads, ffn, scale = TABLE_12[size]
    student = Student(load(f'dtm_vit-{size}_300e'))
    vit = student.backbone
    assert (vit.embed_dims, vit.num_layers, len(vit.layers)) == (width, depth, depth)
    assert vit.patch_resolution == (14, 14) and vit.patch_size == 16
    assert not hasattr(vit, 'pos_embed')
    assert vit.rel_pos_bias.relative_position_bias_table.shape == (27**2 + 3, heads)
    for layer in vit.layers:
        assert layer.attn.num_heads == heads
        assert layer.attn.relative_position_bias_table.shape == (27**2 + 3, heads)
        assert layer.ffn.layers[0][0].out_features == ffn
        assert layer.gamma_1.shape == layer.gamma_2.shape == (width,)
        assert layer.drop_path.drop_prob == 0
    assert load(f'dtm_vit-{size}_300e').model.backbone.layer_scale_init_value == scale
    parameters = sum(p.numel() for p in vit.parameters())
    # Patch embedding, two tokens, final norm; per layer: two norms, qkv with q
    # and v bias, projection, FFN, two scales, table; the shared table.
    per_layer = 4 * width + 3 * width**2 + 2 * width + width**2 + width
    per_layer += 2 * width * ffn + ffn + width + 2 * width + 732 * heads
    expected = (16 * 16 * 3 + 1) * width + 2 * width + 2 * width
    assert parameters == expected + depth * per_layer + 732 * heads


def test_layer_scale_start():
    cfg = load('dtm_vit-l_300e')
    cfg.model.backbone.arch = dict(
        embed_dims=48, num_layers=1, num_heads=3, feedforward_channels=96
    )
    vit = MODELS.build(cfg.model.backbone)
    assert torch.equal(vit.layers[0].gamma_1, torch.full((48,), 1e-5))


def test_the_optimizer_is_table_12s(size):
    cfg = load(f'dtm_vit-{size}_300e')
    assert cfg.optim_wrapper.clip_grad == dict(max_norm=3.0)
    student = Student(cfg)
    cfg.launcher = 'none'
    fit_to_device(cfg)
    wrapper = build_optim_wrapper(student, cfg.optim_wrapper)
    optimizer = wrapper.optimizer
    assert isinstance(optimizer, torch.optim.AdamW)
    named = dict(student.named_parameters())
    groups = {id(p): g for g in optimizer.param_groups for p in g['params']}
    assert len(groups) == len(named)
    for name, parameter in named.items():
        group = groups[id(parameter)]
        assert group['lr'] == pytest.approx(1.5e-4) and group['betas'] == (0.9, 0.98)
        token_or_table = 'token' in name or 'relative_position' in name
        decays = parameter.ndim > 1 and not token_or_table
        assert group['weight_decay'] == (0.05 if decays else 0), name


def test_batch_and_epochs(size):
    cfg = load(f'dtm_vit-{size}_300e')
    assert cfg.train_dataloader.batch_size * 8 == 1024
    assert cfg.auto_scale_lr.base_batch_size == 1024
    assert cfg.train_cfg.max_epochs == 300


@pytest.mark.parametrize('epochs', [300, 100])
def test_rate_over_the_epochs(epochs):
    """10 epochs up from 0 to 1.5e-4, then half a cosine down, at any length."""
    cfg = load('dtm_vit-b_300e')
    cfg.train_cfg.max_epochs = epochs
    lr = rates(cfg, [1.5e-4])[:-1, 0].numpy()
    assert lr[0] == pytest.approx(1.5e-10)
    np.testing.assert_allclose(np.diff(lr[:100]), 1.5e-4 / 99, rtol=1e-4)
    assert lr.argmax() in (99, 100) and lr.max() == pytest.approx(1.5e-4)
    step = np.arange(100, 10 * epochs)
    turn = np.pi * (step - 100) / (10 * epochs - 100)
    cosine = 1e-5 + (1.5e-4 - 1e-5) * (1 + np.cos(turn)) / 2
    np.testing.assert_allclose(lr[100:], cosine, rtol=3e-3)


def test_the_pilot_of_the_learning_rate_has_all_four_readings():
    """docs/fidelity.md's table, by the rules that it names, and its command."""
    root = CONFIGS.parent
    card = read_card(CONFIGS / 'beyond/pilot_vit-b_20e.py')
    page = (root / 'docs/fidelity.md').read_text()
    readings = [1.5e-4, 1.5e-4 * 1024 / 256, 1.5e-3 * 1024 / 2048]
    readings.append(1.5e-3 * (1024 / 2048) ** 0.5)
    words = card.fields['Grid'].split()
    rates_ = words[words.index('--lr') + 1 : words.index('--metric')]
    assert list(map(float, rates_)) == pytest.approx(readings, rel=1e-3)
    for rate in rates_:
        assert f' | {rate} | ' in page
    assert card.fields['Grid'] in ' '.join(page.replace('\\\n', ' ').split())
    pilot = load('beyond/pilot_vit-b_20e')
    assert any(hook.type == 'FeatureProbeHook' for hook in pilot.custom_hooks)
    ours = load('dtm_vit-b_300e')
    for name in ('model', 'optim_wrapper', 'param_scheduler', 'train_dataloader'):
        assert pilot[name] == ours[name]


def test_the_pipeline_is_table_12s():
    cfg = load('dtm_vit-b_300e')
    steps = {step.type: step for step in cfg.train_dataloader.dataset.pipeline}
    order = list(steps)
    assert order.index('JitteredResizedCrop') < order.index('RandomFlip')
    jittered_crop = TRANSFORMS.build(steps['JitteredResizedCrop'])
    assert jittered_crop.grey_stride == 1  # exact
    jitter, crop = jittered_crop.jitter, jittered_crop.crop
    for name in ('brightness', 'contrast', 'saturation'):
        assert tuple(getattr(jitter, name)) == pytest.approx((0.6, 1.4))
    assert not jitter.hue or tuple(jitter.hue) == (0, 0)
    assert crop.scale == (224, 224) and crop.interpolation == 'bicubic'
    assert crop.crop_ratio_range == (0.2, 1.0)  # BEiT v2's
    masks = TRANSFORMS.build(steps['BlockMaskGenerator'])
    assert (masks.height, masks.width, masks.num_masked) == (14, 14, 78)
    # docs/fidelity.md overrides it by its place.
    assert order.index('BlockMaskGenerator') == 3


def test_teacher_morphing_and_loss(size):
    model = load(f'dtm_vit-{size}_300e').model
    assert model.target_generator.model == 'ViT-B-16-quickgelu'
    assert model.target_generator.pretrained == 'openai'
    assert model.head.loss.distance == 'cosine'
    morphing = MODELS.build(model.morphing)
    assert (morphing.levels, morphing.partition) == (2, 'alternate')
    drawn = DynamicSchedule(196, morphing.num_morphed, morphing.num_iters)
    schedules = [drawn.draw(0, step) for step in range(5000)]
    assert {len(schedule) for schedule in schedules} == set(range(1, 15))
    morphed = [196 - sum(schedule) for schedule in schedules]
    assert (min(morphed), max(morphed)) == (1, 196)
    assert abs(np.mean(morphed) - 98.5) < 3


def test_the_release_is_the_authors_recipe(size):
    cfg = load(f'release/dtm_vit-{size}_300e')
    steps = {step.type: step for step in cfg.train_dataloader.dataset.pipeline}
    assert list(steps) == [
        step.type for step in load('dtm_vit-b_300e').train_dataloader.dataset.pipeline
    ]
    assert steps['JitteredResizedCrop'].crop_ratio_range == (0.08, 1.0)
    masks = TRANSFORMS.build(steps['BlockMaskGenerator'])
    assert masks.num_masked == 75 and masks.min_num_patches == 16
    assert masks.whole_blocks
    assert np.exp(masks.log_aspect) == pytest.approx((0.3, 1 / 0.3))
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(
        1.5e-3 * (1024 / 2048) ** 0.5, rel=1e-3
    )
    model = cfg.model
    assert model.data_preprocessor.target_mean == model.data_preprocessor.mean
    assert (model.head.loss.distance, model.head.loss.beta) == ('smooth_l1', 2.0)
    assert model.backbone.drop_path_rate == 0.1
    assert model.morphing == dict(type='ReleaseMorphing', levels=2, num_iters=(1, 14))


def test_three_lines_inherit(tmp_path):
    """What docs/inherit.md shows works: backbone, teacher, data, schedule."""
    base = f"_base_ = ['{CONFIGS}/dtm_vit-b_300e.py']\n"
    file = tmp_path / 'mine.py'
    lines = {
        "model = dict(backbone=dict(arch='small'))": ('model.backbone.arch', 'small'),
        "model = dict(target_generator=dict(model='ViT-L-14', pretrained='x.pt'))": (
            'model.target_generator.model',
            'ViT-L-14',
        ),
        "train_dataloader = dict(dataset=dict(data_root='/d'))": (
            'train_dataloader.dataset.data_root',
            '/d',
        ),
        'train_cfg = dict(max_epochs=800)': ('train_cfg.max_epochs', 800),
    }
    for line, (key, value) in lines.items():
        file.write_text(base + line)
        found = load(file.with_suffix(''))
        for part in key.split('.'):
            found = found[part]
        assert found == value
