"""DTMViT and DTMPretrainViT: against timm's BEiT, and property by property."""

import mmdtm.plugin  # noqa: F401  # isort: skip

import math

import pytest
import torch
from counting import operations
from mmpretrain.registry import MODELS
from scipy.stats import truncnorm
from timm.layers import trunc_normal_ as timm_trunc_normal_
from timm.models.beit import Beit
from tiny import ARCH
from torch import nn

from mmdtm.models.backbones import DTMPretrainViT, DTMViT
from mmdtm.models.backbones.dtm_vit import scaled_linear, trunc_normal_
from mmdtm.models.backbones.position_bias import resize_table


def build(cls=DTMViT, **options):
    """A small backbone in eval mode, nothing in it zero or one."""
    options = {'arch': ARCH, 'img_size': 64, **options}
    model = cls(**options).eval()
    with torch.no_grad():
        for name, param in model.named_parameters():
            if 'gamma' in name or 'ln' in name and name.endswith('weight'):
                param.uniform_(0.5, 1.5)
            else:
                param.normal_(std=0.3 if 'table' in name else 0.1)
    return model


# Our names to timm's.
NAMES = {
    'patch_embed.projection': 'patch_embed.proj',
    'ln1': 'norm1',
    'ln2': 'norm2',
    'ffn.layers.0.0': 'mlp.fc1',
    'ffn.layers.1': 'mlp.fc2',
    'layers': 'blocks',
}


def timm_twin(model: DTMViT, global_pool: str) -> Beit:
    """timm's BEiT with the weights of ``model``."""
    arch = model.arch_settings
    twin = Beit(
        img_size=model.img_size,
        patch_size=16,
        num_classes=0,
        embed_dim=arch['embed_dims'],
        depth=arch['num_layers'],
        num_heads=arch['num_heads'],
        mlp_ratio=arch['feedforward_channels'] / arch['embed_dims'],
        use_abs_pos_emb=False,
        init_values=0.1,
        use_rel_pos_bias=model.use_rel_pos_bias,
        use_shared_rel_pos_bias=model.use_shared_rel_pos_bias,
        global_pool=global_pool,
    ).eval()
    state = {}
    for name, value in model.state_dict().items():
        if name.startswith('ln'):  # the final one, of tokens or of their mean
            name = ('fc_norm' if global_pool == 'avg' else 'norm') + name[3:]
        for ours, theirs in NAMES.items():
            name = name.replace(ours, theirs)
        state[name] = value
    state.pop('mask_token', None)
    twin.load_state_dict(state)
    return twin


@pytest.mark.parametrize(
    ('own', 'shared'), [(True, True), (True, False), (False, True)]
)
@pytest.mark.parametrize('img_size', [64, (64, 96)])
def test_forward__equals_timms_beit(own, shared, img_size):
    model = build(
        img_size=img_size,
        use_rel_pos_bias=own,
        final_norm=True,
        use_shared_rel_pos_bias=shared,
        out_type='raw',
    )
    images = torch.randn(2, 3, *model.img_size)
    with torch.no_grad():
        expected = timm_twin(model, 'token').forward_features(images)
        torch.testing.assert_close(model(images)[0], expected, rtol=0, atol=1e-5)


def test_forward__pooled_equals_timms_beit():
    model = build(out_type='avg_featmap')
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = timm_twin(model, 'avg')(images)
        torch.testing.assert_close(model(images)[0], expected, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_forward__base_equals_timms_beitv2():
    """The full width and depth of ViT-B/16, both position biases on."""
    model = build(DTMPretrainViT, arch='base', img_size=224)
    with torch.no_grad():
        for name, param in model.named_parameters():
            if param.ndim > 1 and 'table' not in name:
                param.mul_(0.2)  # std 0.02: the residual stream stays of order 1
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = timm_twin(model, 'token').forward_features(images)
        torch.testing.assert_close(model(images)[0], expected, rtol=0, atol=1e-5)


def test_forward__without_position_tables():
    model = build(use_rel_pos_bias=False, out_type='raw')
    assert not any('table' in name for name in model.state_dict())
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        tokens = model(images)[0][:, 1:]
        # Without positions, permuted patches give permuted tokens.
        flipped = model(images.unflatten(2, (4, 16)).flip(2).flatten(2, 3))[0][:, 1:]
    torch.testing.assert_close(
        flipped.unflatten(1, (4, 4)).flip(1).flatten(1, 2), tokens
    )


@pytest.mark.parametrize('qkv_bias', [True, False])
def test_forward__qkv_bias_of_all_or_none(qkv_bias):
    """'qv_bias' is all of them with the keys' at zero; False all at zero."""
    model = build(qkv_bias=qkv_bias, out_type='raw')
    reference = build(qkv_bias='qv_bias', out_type='raw')
    state = model.state_dict()
    for i in range(2):
        bias = state.pop(f'layers.{i}.attn.qkv.bias', torch.zeros(144))
        bias[48:96] = 0
        state[f'layers.{i}.attn.q_bias'], state[f'layers.{i}.attn.v_bias'] = (
            bias[:48],
            bias[96:],
        )
    reference.load_state_dict(state)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(images), reference(images))


@pytest.mark.parametrize(
    ('kind', 'options', 'ours'),
    [
        ('BEiTViT', dict(out_type='avg_featmap'), lambda: build()),
        (
            'BEiTPretrainViT',
            {},
            lambda: build(DTMPretrainViT, use_rel_pos_bias=False),
        ),
    ],
)
def test_parameter_names__are_mmpretrains(kind, options, ours):
    """Names and shapes, but for the index buffers: ours has none."""
    theirs = MODELS.build(dict(type=kind, arch=ARCH, img_size=64, **options))
    expected = {
        name: value.shape
        for name, value in theirs.state_dict().items()
        if not name.endswith('relative_position_index')
    }
    assert {n: value.shape for n, value in ours().state_dict().items()} == expected


@pytest.mark.parametrize('mask_dtype', [torch.bool, torch.int64, torch.float32])
def test_pretrain__empty_mask_equals_no_mask_and_dtm_vit(mask_dtype):
    pretrain = build(DTMPretrainViT)
    plain = build(use_shared_rel_pos_bias=True, final_norm=True, out_type='raw')
    plain.load_state_dict(pretrain.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = plain(images)[0]
        empty = torch.zeros(2, 4, 4, dtype=mask_dtype)
        assert torch.equal(pretrain(images, empty)[0], expected)
        assert torch.equal(pretrain(images)[0], expected)


@pytest.mark.parametrize('mask_dtype', [torch.bool, torch.int64])
def test_pretrain__masked_patches_do_not_matter_and_others_do(mask_dtype):
    model = build(DTMPretrainViT)
    mask = torch.zeros(1, 4, 4, dtype=mask_dtype)
    mask[0, 1, 2] = 1
    images = torch.randn(1, 3, 64, 64)
    at_mask, beside = images.clone(), images.clone()
    at_mask[:, :, 16:32, 32:48] += 1.0
    beside[:, :, 32:48, 16:32] += 1.0
    with torch.no_grad():
        expected = model(images, mask)[0]
        assert torch.equal(model(at_mask, mask)[0], expected)
        assert not torch.allclose(model(beside, mask)[0], expected)
        assert not torch.allclose(model(images)[0], expected)
        # The mask token is what stands there instead.
        model.mask_token.add_(1.0)
        assert not torch.allclose(model(images, mask)[0], expected)


def test_pretrain__wrong_mask_is_named():
    with pytest.raises(ValueError, match=r'\(1, 4, 4\).*got \(1, 16\)'):
        build(DTMPretrainViT)(torch.zeros(1, 3, 64, 64), torch.zeros(1, 16))


@pytest.mark.parametrize('cls', [DTMViT, DTMPretrainViT])
def test_backward__reaches_every_parameter(cls):
    model = build(cls).train()
    inputs = [torch.randn(2, 3, 64, 64)]
    if cls is DTMPretrainViT:
        inputs.append(torch.rand(2, 4, 4) > 0.5)
    model(*inputs)[0].square().sum().backward()
    without = [
        name
        for name, param in model.named_parameters()
        if param.grad is None or not param.grad.any()
    ]
    assert not without, without


def test_drop_path__acts_once_per_branch():
    """With both branches dropped at rate p, a token survives untouched with p**2.

    Each branch dropped twice at rate p would give (1 - (1 - p)**2)**2.
    """
    rate, samples = 0.5, 4000
    model = DTMViT(
        arch={**ARCH, 'num_layers': 1},
        img_size=16,
        drop_path_rate=0.0,
        layer_scale_init_value=1.0,
    ).train()
    layer = model.layers[0]
    layer.drop_path.drop_prob = rate
    x = torch.randn(samples, 2, 48)
    with torch.no_grad():
        delta = layer(x, None) - x
        scale = 1 / (1 - rate)
        attention = scale * layer.attn(layer.ln1(x), None)
    untouched = (delta.abs().amax(dim=(1, 2)) == 0).float().mean().item()
    # Three standard errors of 4000 draws at 0.25 are 0.02; twice gives 0.56.
    assert untouched == pytest.approx(rate**2, abs=0.025)
    feed_forward_dropped = [
        torch.allclose(d, a, atol=1e-6) for d, a in zip(delta, attention, strict=True)
    ]
    assert sum(feed_forward_dropped) / samples == pytest.approx(rate**2, abs=0.025)


def test_drop_path__grows_linearly_and_rests_in_eval():
    model = build(arch={**ARCH, 'num_layers': 5}, drop_path_rate=0.2)
    rates = [layer.drop_path.drop_prob for layer in model.layers]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(model(images)[0], model(images)[0])


# The deviation that is left of normal(0.02) between -0.02 and 0.02: 0.0108.
INIT_STD = float(truncnorm(-1, 1, scale=0.02).std())


def test_init__spread_and_depth_rescaling():
    """BEiT's pre-training code, in which timm's helper is given these bounds."""
    theirs = timm_trunc_normal_(torch.empty(200, 1000), std=0.02, a=-0.02, b=0.02)
    assert theirs.std().item() == pytest.approx(INIT_STD, rel=0.01)
    assert INIT_STD == pytest.approx(0.0108, abs=5e-5)
    model = DTMPretrainViT(
        arch=dict(embed_dims=192, num_layers=4, num_heads=3, feedforward_channels=768),
        img_size=64,
    )
    model.init_weights()
    for depth, layer in enumerate(model.layers, start=1):
        for weight, std in (
            (layer.attn.qkv.weight, INIT_STD),
            (layer.ffn.layers[0][0].weight, INIT_STD),
            (layer.attn.proj.weight, INIT_STD / math.sqrt(2 * depth)),
            (layer.ffn.layers[1].weight, INIT_STD / math.sqrt(2 * depth)),
        ):
            assert weight.std().item() == pytest.approx(std, rel=0.03)
            assert weight.mean().item() == pytest.approx(0, abs=std / 20)
            assert weight.abs().max() <= std * 0.02 / INIT_STD * 1.0001
        for zero in (
            layer.attn.q_bias,
            layer.attn.v_bias,
            layer.attn.proj.bias,
            layer.ffn.layers[0][0].bias,
            layer.ffn.layers[1].bias,
            layer.attn.relative_position_bias_table,
        ):
            assert not zero.any()
        assert (layer.gamma_1 == 0.1).all() and (layer.gamma_2 == 0.1).all()
        assert layer.gamma_1 is not layer.gamma_2
    assert model.patch_embed.projection.weight.std().item() == pytest.approx(
        INIT_STD, rel=0.03
    )
    for token in (model.cls_token, model.mask_token):  # 192 draws each
        assert token.std().item() == pytest.approx(INIT_STD, rel=0.2)
        assert token.abs().max() <= 0.02
    assert not torch.equal(model.cls_token, model.mask_token)


def test_layer_scale__zero_leaves_it_out():
    model = DTMViT(arch=ARCH, img_size=64, layer_scale_init_value=0)
    assert not any('gamma' in name for name in model.state_dict())
    assert torch.isfinite(model(torch.randn(1, 3, 64, 64))[0]).all()


def test_out_types__are_views_of_the_same_tokens():
    outputs = {}
    source = build(DTMPretrainViT, use_shared_rel_pos_bias=False, final_norm=False)
    images = torch.randn(2, 3, 64, 96)
    for out_type in DTMViT.OUT_TYPES:
        model = build(out_type=out_type, out_indices=(0, -1))
        model.load_state_dict(source.state_dict())
        with torch.no_grad():
            outputs[out_type] = model(images)
        assert isinstance(outputs[out_type], tuple) and len(outputs[out_type]) == 2
    ln2 = model.ln2  # the last out_type's model pools
    assert not torch.equal(*outputs['raw'])
    for level in range(2):
        raw = outputs['raw'][level]
        assert raw.shape == (2, 1 + 4 * 6, 48)
        assert torch.equal(outputs['cls_token'][level], raw[:, 0])
        featmap = outputs['featmap'][level]
        assert featmap.shape == (2, 48, 4, 6)
        assert torch.equal(featmap[1, :, 2, 3], raw[1, 1 + 2 * 6 + 3])
        pooled = raw[:, 1:].mean(1)
        torch.testing.assert_close(
            outputs['avg_featmap'][level],
            nn.functional.layer_norm(pooled, (48,), ln2.weight, ln2.bias, 1e-6),
        )


def test_final_norm__acts_on_the_last_layer_alone():
    plain = build(out_type='raw', out_indices=(0, 1))
    normed = build(out_type='raw', out_indices=(0, 1), final_norm=True)
    state = {
        **plain.state_dict(),
        'ln1.weight': torch.rand(48),
        'ln1.bias': torch.rand(48),
    }
    normed.load_state_dict(state)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        first, last = plain(images)
        torch.testing.assert_close(
            normed(images),
            (
                first,
                nn.functional.layer_norm(
                    last, (48,), state['ln1.weight'], state['ln1.bias'], 1e-6
                ),
            ),
        )


@pytest.mark.parametrize('size', [(96, 96), (32, 32), (48, 128)])
def test_other_input_sizes__equal_a_model_built_for_them(size):
    """Resizing on the fly gives what resizing at loading gives."""
    model = build(use_shared_rel_pos_bias=True, out_type='featmap')
    resized = build(use_shared_rel_pos_bias=True, out_type='featmap', img_size=size)
    state = model.state_dict()
    for name, value in state.items():
        if 'table' in name:
            state[name] = resize_table(value, (4, 4), resized.patch_resolution)
    resized.load_state_dict(state)
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        torch.testing.assert_close(model(images), resized(images))
        assert model(images)[0].shape == (2, 48, size[0] // 16, size[1] // 16)


def test_other_input_sizes__follow_the_weights_and_pass_gradients():
    """Nothing stale: changed tables change the output of a size seen before."""
    model = build(out_type='raw')
    images = torch.randn(1, 3, 80, 80)
    before = model(images)[0]
    before.square().sum().backward()
    table = model.layers[0].attn.relative_position_bias_table
    assert table.grad.abs().sum() > 0
    with torch.no_grad():
        table.normal_()
    assert not torch.allclose(model(images)[0], before)


def test_other_input_sizes__no_multiple_of_the_patch_is_padded():
    model = build(out_type='featmap')
    images = torch.randn(1, 3, 50, 70)
    padded = nn.functional.pad(images, (0, 10, 0, 14))
    with torch.no_grad():
        assert torch.equal(model(images)[0], model(padded)[0])
        assert model(images)[0].shape == (1, 48, 4, 5)


@pytest.mark.parametrize(
    ('options', 'match'),
    [
        (dict(img_size=100), '100 x 100 is not a multiple of the patch size 16'),
        (dict(img_size=(64, 70)), '64 x 70 .* 16'),
        (dict(img_size=64, patch_size=24), '64 x 64 .* 24'),
        (dict(pretrain_img_size=60), 'pretrain_img_size 60 x 60'),
        (dict(arch='enormous'), "'enormous'. .*'base'"),
        (dict(arch=dict(embed_dims=48)), 'feedforward_channels.*missing'),
        (dict(arch={**ARCH, 'num_heads': 5}), '48 is not a multiple of num_heads 5'),
        (dict(out_type='pooled'), "'pooled'. .*avg_featmap"),
        (dict(out_indices=(0, 2)), r'are \[0, 2\], .* -2 to 1'),
        (dict(out_indices=-3), r'-2 to 1'),
        (dict(frozen_stages=3), r'3. Give an int in \[-1, 2\]'),
    ],
)
def test_bad_options__are_named(options, match):
    with pytest.raises(ValueError, match=match):
        DTMViT(**{'arch': ARCH, 'img_size': 64, **options})


@pytest.mark.parametrize('frozen_stages', [-1, 0, 1, 2])
def test_frozen_stages(frozen_stages):
    model = build(DTMPretrainViT, frozen_stages=frozen_stages, drop_path_rate=0.5)
    assert model.train() is model
    assert model.eval() is model
    model.train()
    stem = ('cls_token', 'mask_token', 'patch_embed.', 'rel_pos_bias.')
    for name, param in model.named_parameters():
        if name.startswith(stem):
            frozen = frozen_stages >= 0
        elif name.startswith('layers.'):
            frozen = int(name.split('.')[1]) < frozen_stages
        else:
            frozen = frozen_stages == 2
        assert param.requires_grad is not frozen, name
    for i, layer in enumerate(model.layers):
        assert all(m.training is (i >= frozen_stages) for m in layer.modules())
    assert model.patch_embed.training is (frozen_stages < 0)
    assert model.rel_pos_bias.training is (frozen_stages < 0)
    assert model.ln1.training is (frozen_stages < 2)
    if frozen_stages == 2:
        assert torch.equal(
            model(torch.ones(1, 3, 64, 64))[0], model(torch.ones(1, 3, 64, 64))[0]
        )


@pytest.mark.parametrize(
    'arch, num_layers', [('s', 12), ('b', 12), ('l', 24), ('h', 32), ('g', 40)]
)
def test_get_layer_depth__table(arch, num_layers):
    with torch.device('meta'):
        model = DTMPretrainViT(arch=arch, out_type='avg_featmap')
    last = num_layers + 1
    table = {
        'cls_token': 0,
        'mask_token': 0,
        'patch_embed': 0,
        'rel_pos_bias': last,
        'ln1': last,
        'ln2': last,
    }
    table |= {f'layers.{i}': i + 1 for i in range(num_layers)}
    seen = set()
    for name, _ in model.named_parameters():
        start = '.'.join(name.split('.')[: 2 if name.startswith('layers') else 1])
        seen.add(start)
        expected = (table[start], num_layers + 2)
        assert model.get_layer_depth(name) == expected
        assert model.get_layer_depth(f'backbone.{name}', 'backbone.') == expected
        # The same name elsewhere in the model is not the backbone's.
        assert model.get_layer_depth(f'head.{name}', 'backbone.') == (
            last,
            num_layers + 2,
        )
    assert seen == set(table)


def test_autocast__bias_follows_the_queries():
    model = build(DTMPretrainViT)
    images, mask = torch.randn(1, 3, 64, 64), torch.rand(1, 4, 4) > 0.5
    with torch.no_grad():
        expected = model(images, mask)[0]
        with torch.autocast('cpu', torch.bfloat16):
            low = model(images, mask)[0]
    assert torch.isfinite(low).all()
    torch.testing.assert_close(low.float(), expected, rtol=0, atol=0.1)


@pytest.mark.slow
def test_compile__whole_graph_at_the_own_size_and_right_at_others():
    model = build(DTMPretrainViT)
    images, mask = torch.randn(2, 3, 64, 64), torch.rand(2, 4, 4) > 0.5
    others = torch.randn(2, 3, 80, 48)
    with torch.no_grad():
        compiled = torch.compile(model, backend='eager', fullgraph=True)
        torch.testing.assert_close(compiled(images, mask), model(images, mask))
        torch.compiler.reset()
        compiled = torch.compile(model, backend='eager')
        torch.testing.assert_close(compiled(others), model(others))


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_position_biases__one_aligned_look_up_for_all_layers(dtype, monkeypatch):
    model = build(DTMPretrainViT, use_shared_rel_pos_bias=True)
    given = []
    attend = nn.functional.scaled_dot_product_attention

    def noting(q, k, v, attn_mask):
        given.append((q.dtype, attn_mask))
        return attend(q, k, v, attn_mask=attn_mask)

    monkeypatch.setattr(nn.functional, 'scaled_dot_product_attention', noting)
    images = torch.randn(2, 3, 64, 64)
    with torch.autocast('cpu', torch.bfloat16, enabled=dtype == torch.bfloat16):
        counted = operations(lambda: model(images))
    assert counted['index_select'] == 1
    assert len(given) == model.num_layers
    shared = model.rel_pos_bias.relative_position_bias_table
    for layer, (precision, bias) in zip(model.layers, given, strict=True):
        assert precision == bias.dtype == dtype
        assert bias.stride(-1) == 1 and bias.stride(-2) % 8 == 0
        table = layer.attn.relative_position_bias_table + shared
        expected = table[model.position_index].permute(2, 0, 1)
        assert bias[0].equal(expected.to(dtype))


@pytest.mark.parametrize('cls', [DTMViT, DTMPretrainViT])
def test_activation_checkpointing__same_gradients_from_fewer_kept_tensors(cls):
    kept, gradients = [], []
    for with_cp in (False, True):
        torch.manual_seed(0)
        model = build(cls, with_cp=with_cp, drop_path_rate=0.5).train()
        count = []
        torch.manual_seed(1)
        pack, unpack = lambda x: count.append(x) or x, lambda x: x  # noqa: B023
        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            output = model(torch.ones(2, 3, 64, 64))[-1]
        output.square().sum().backward()
        kept.append(len(count))
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, again)
    assert kept[1] < kept[0] / 3


@pytest.mark.parametrize('half', [None, torch.bfloat16, torch.float16])
def test_scaled_linear__is_the_scaled_layer(half):
    """By its weights, but in float16, where 1e-5 of them would vanish."""
    linear, x = nn.Linear(24, 16), torch.randn(40, 24)
    trunc_normal_(linear.weight)
    nn.init.normal_(linear.bias)
    found, expected, exact = [], [], []
    for results, dtype, function in (
        (found, half, scaled_linear),
        (expected, half, lambda layer, x, scale: scale * layer(x)),
        (exact, None, lambda layer, x, scale: scale * layer(x)),
    ):
        scale = torch.full((16,), 1e-5, requires_grad=True)
        linear.zero_grad()
        with torch.autocast('cpu', dtype, enabled=dtype is not None):
            y = function(linear, x, scale)
        (y.float().sin() + y.float() * torch.linspace(1, 2, 16)).sum().backward()
        results += [y.float(), scale.grad, linear.weight.grad.clone()]
        results += [linear.bias.grad.clone()]
    for ours, plain, right in zip(found, expected, exact, strict=True):
        error = (ours - right).norm() / right.norm()
        if half is None:
            assert error < 1e-6
        else:
            assert error < 2 * (plain - right).norm() / right.norm() + 1e-6


def test_scaled_linear__leaves_other_layers_to_themselves():
    class Wrapped(nn.Linear):
        def forward(self, x):
            return super().forward(x) + 1

    wrapped, x, scale = Wrapped(24, 16), torch.randn(4, 24), torch.randn(16)
    assert scaled_linear(wrapped, x, scale).equal(scale * wrapped(x))
