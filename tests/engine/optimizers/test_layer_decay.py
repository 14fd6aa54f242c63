"""Layer-wise decay, parameter by parameter, by a table written by hand."""

import mmdtm.plugin  # noqa: F401  # isort: skip

import re

import mmseg.registry
import pytest
import torch
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import CosineAnnealingLR, LinearLR, build_optim_wrapper
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from tiny import ARCH, classifier_config
from tiny_run import ROOT
from torch import nn

from mmdtm.smoke import shrink_model

CONSTRUCTOR = 'LayerDecayOptimWrapperConstructor'


def classifier(**options) -> nn.Module:
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(classifier_config(**options))


def optim_wrapper(model, lr=1e-3, decay=0.5, constructor=CONSTRUCTOR, **paramwise):
    return build_optim_wrapper(
        model,
        dict(
            type='OptimWrapper',
            optimizer=dict(type='AdamW', lr=lr, weight_decay=0.05),
            constructor=constructor,
            paramwise_cfg=dict(layer_decay_rate=decay, **paramwise),
        ),
    )


def settings(model, wrapper) -> dict[str, tuple[float, float]]:
    """Name of each trainable parameter to its (lr, weight decay)."""
    names = {param: name for name, param in model.named_parameters()}
    found = {}
    for group in wrapper.optimizer.param_groups:
        for param in group['params']:
            assert names[param] not in found
            found[names[param]] = (group['lr'], group['weight_decay'])
    assert set(found) == {n for n, p in model.named_parameters() if p.requires_grad}
    return found


def layer_table(num_layers: int) -> dict[str, int]:
    """Start of a parameter's name to how often its rate is decayed."""
    table = {
        'backbone.cls_token': num_layers + 1,
        'backbone.mask_token': num_layers + 1,
        'backbone.patch_embed.': num_layers + 1,
        'backbone.rel_pos_bias.': 0,
        'backbone.ln1.': 0,
        'backbone.ln2.': 0,
        'head.': 0,
        'neck.': 0,
        'decode_head.': 0,
        'auxiliary_head.': 0,
    }
    for i in range(num_layers):
        table[f'backbone.layers.{i}.'] = num_layers - i
    return table


# Every kind of parameter that weight decay acts on.
DECAYED = re.compile(
    r'(backbone\.patch_embed\.projection|backbone\.layers\.\d+\.(attn\.qkv|attn\.proj'
    r'|ffn\.layers\.0\.0|ffn\.layers\.1)|head\.fc)\.weight'
)


@pytest.mark.parametrize(
    ('arch', 'num_layers', 'decay', 'lr'),
    [('small', 12, 0.6, 5e-4), ('base', 12, 0.6, 5e-4), ('large', 24, 0.8, 5e-4)],
)
@pytest.mark.parametrize('shared', [False, True])
def test_every_rate__is_the_formulas(arch, num_layers, decay, lr, shared):
    """Table 13's decay for S, B and L: lr * decay**(layers + 1 - depth)."""
    with torch.device('meta'):
        model = classifier(arch=arch, use_shared_rel_pos_bias=shared, final_norm=True)
    table = layer_table(num_layers)
    found = settings(model, optim_wrapper(model, lr, decay))
    for name, (rate, weight_decay) in found.items():
        (times,) = [n for start, n in table.items() if name.startswith(start)]
        assert rate == pytest.approx(lr * decay**times, rel=1e-12), name
        assert weight_decay == (0.05 if DECAYED.fullmatch(name) else 0), name
    # The ends of the table, in plain figures.
    assert found['head.fc.weight'] == (lr, 0.05)
    assert found['backbone.cls_token'][0] == pytest.approx(
        {12: 5e-4 * 0.6**13, 24: 5e-4 * 0.8**25}[num_layers]
    )
    last = f'backbone.layers.{num_layers - 1}.'
    for name in ('attn.relative_position_bias_table', 'gamma_1', 'attn.q_bias'):
        assert found[last + name] == (pytest.approx(lr * decay), 0)


def test_pretraining_model__mask_token_is_at_the_bottom():
    with torch.device('meta'):
        backbone = MODELS.build(
            dict(type='mmpretrain.DTMPretrainViT', arch=ARCH, img_size=64)
        )
    model = nn.Module()
    model.backbone = backbone
    found = settings(model, optim_wrapper(model))
    assert found['backbone.mask_token'] == (1e-3 * 0.5**3, 0)
    assert found['backbone.rel_pos_bias.relative_position_bias_table'] == (1e-3, 0)


@pytest.mark.parametrize('scope', ['mmseg', 'mmpretrain'])
def test_every_rate__of_an_encoder_decoder_is_the_formulas(scope):
    """mmsegmentation's UperNet over DTMViT, as the ADE20K configs have it."""
    cfg = Config.fromfile(
        ROOT / 'configs/segmentation/upernet_dtm_vit-b_160k_ade20k-512x512.py'
    )
    shrink_model(cfg.model)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = mmseg.registry.MODELS.build(cfg.model)
    with DefaultScope.overwrite_default_scope(scope):
        wrapper = optim_wrapper(model, 5e-5, 0.75)
    table = layer_table(4)
    found = settings(model, wrapper)
    for name, (rate, weight_decay) in found.items():
        (times,) = [n for start, n in table.items() if name.startswith(start)]
        assert rate == pytest.approx(5e-5 * 0.75**times, rel=1e-12), name
        matrix = dict(model.named_parameters())[name].ndim > 1
        no_decay = name.endswith(('cls_token', 'relative_position_bias_table'))
        assert weight_decay == (0.05 if matrix and not no_decay else 0), name
    assert any(name.startswith('neck.') for name in found)


@pytest.mark.parametrize('scope', ['mmengine', 'mmpretrain', 'mmseg'])
@pytest.mark.parametrize('prefix', ['', 'mmpretrain.', 'mmengine.'])
def test_found_from_every_scope(scope, prefix):
    with DefaultScope.overwrite_default_scope(scope):
        wrapper = optim_wrapper(classifier(), constructor=prefix + CONSTRUCTOR)
    assert len(wrapper.optimizer.param_groups) == 8


def test_groups__one_per_rate_and_weight_decay():
    groups = optim_wrapper(classifier()).optimizer.param_groups
    kinds = [(group['lr'], group['weight_decay']) for group in groups]
    rates = (1.25e-4, 2.5e-4, 5e-4, 1e-3)
    assert kinds == [(rate, decay) for rate in rates for decay in (0, 0.05)]
    # Pre-training has one rate: AdamW then updates all tensors in two sweeps.
    groups = optim_wrapper(classifier(), decay=1).optimizer.param_groups
    assert [(g['lr'], g['weight_decay']) for g in groups] == [(1e-3, 0), (1e-3, 0.05)]


def test_schedulers__as_with_one_group_per_parameter():
    """Warm-up and cosine give each parameter what mmpretrain's constructor gives."""
    model = classifier()
    wrappers = [
        optim_wrapper(model),
        optim_wrapper(
            model,
            constructor='mmpretrain.LearningRateDecayOptimWrapperConstructor',
            flat_decay_mult=0.0,
        ),
    ]
    assert len(wrappers[1].optimizer.param_groups) == len(list(model.parameters()))
    schedulers = [
        [
            LinearLR(wrapper, start_factor=1e-3, begin=0, end=4),
            CosineAnnealingLR(wrapper, begin=4, end=12, T_max=8, eta_min_ratio=2e-3),
        ]
        for wrapper in wrappers
    ]
    for _ in range(12):
        rates = [
            {name: rate for name, (rate, _) in settings(model, wrapper).items()}
            for wrapper in wrappers
        ]
        assert rates[0] == pytest.approx(rates[1], rel=1e-12)
        for wrapper, both in zip(wrappers, schedulers, strict=True):
            wrapper.optimizer.step()
            for scheduler in both:
                scheduler.step()
    head, stem = rates[0]['head.fc.weight'], rates[0]['backbone.cls_token']
    assert stem / head == pytest.approx(0.5**3)


def test_frozen_parameters__are_left_out():
    model = classifier(frozen_stages=1)
    found = settings(model, optim_wrapper(model))
    assert not any(name.startswith('backbone.layers.0.') for name in found)
    assert 'backbone.layers.1.gamma_1' in found
    for param in model.parameters():
        param.requires_grad_(False)
    with pytest.raises(ValueError, match='no trainable parameter'):
        optim_wrapper(model)


def test_distributed_wrapper__is_looked_through(tmp_path):
    model = classifier()
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1
    )
    try:
        wrapped = MMDistributedDataParallel(model, device_ids=None)
        assert settings(model, optim_wrapper(wrapped)) == settings(
            model, optim_wrapper(model)
        )
    finally:
        torch.distributed.destroy_process_group()


def test_other_backbones_that_know_depths__are_decayed_too():
    """mmpretrain's own BEiT: the recipe is inherited by another ViT."""
    model = classifier(kind='BEiTViT')
    found = settings(model, optim_wrapper(model))
    assert found['backbone.layers.1.attn.qkv.weight'] == (5e-4, 0.05)
    assert found['backbone.layers.1.attn.relative_position_bias_table'] == (5e-4, 0)


def test_log__shows_the_groups(log_lines):
    lines = log_lines('Layer-wise decay 0.5')
    optim_wrapper(classifier())
    (table,) = lines
    rows = [line.split() for line in table.splitlines()[2:]]
    # Depth, rate, weight decay, tensors, parameters: the stem's projection.
    assert rows[1] == ['0', '1.250e-04', '0.05', '1', '36,864']
    assert len(rows) == 8
    assert [row[0] for row in rows] == ['0', '0', '1', '1', '2', '2', '3', '3']
    assert sum(int(row[4].replace(',', '')) for row in rows) == sum(
        p.numel() for p in classifier().parameters()
    )


@pytest.mark.parametrize(
    ('options', 'match'),
    [
        (dict(decay=0), 'is 0. Give a factor above 0 and of at most 1'),
        (dict(decay=1.2), 'is 1.2. Give a factor'),
        (dict(custom_keys={}), r"\['custom_keys', 'layer_decay.* no other key"),
        (dict(lr=None), 'lr and weight_decay'),
    ],
)
def test_bad_options__are_named(options, match):
    with pytest.raises(ValueError, match=match):
        optim_wrapper(classifier(), **options)


def test_rate_missing__is_named():
    with pytest.raises(ValueError, match='Give it layer_decay_rate'):
        build_optim_wrapper(
            classifier(),
            dict(
                type='OptimWrapper',
                optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
                constructor=CONSTRUCTOR,
            ),
        )


def test_model_without_depths__is_named():
    with pytest.raises(ValueError, match='Linear has no backbone'):
        optim_wrapper(nn.Linear(2, 2))
    model = nn.Module()
    model.backbone = nn.Linear(2, 2)
    with pytest.raises(ValueError, match='the backbone Linear without it'):
        optim_wrapper(model)
