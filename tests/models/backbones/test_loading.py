"""Loading checkpoints into the backbone, by every way that leads there."""

import mmdtm.plugin  # noqa: F401  # isort: skip

import re

import numpy as np
import pytest
import torch
from mmengine.runner import Runner
from mmengine.runner.checkpoint import load_state_dict
from mmpretrain.registry import MODELS
from reference import resize_by_splines
from tiny import ARCH, classifier_config

from mmdtm.models.backbones import DTMPretrainViT, DTMViT

SHARED = 'rel_pos_bias.relative_position_bias_table'
OWN = [f'layers.{i}.attn.relative_position_bias_table' for i in range(2)]


def pretrained(img_size=64, arch=ARCH, **options) -> DTMPretrainViT:
    model = DTMPretrainViT(arch=arch, img_size=img_size, **options)
    with torch.no_grad():
        for param in model.parameters():
            param.normal_(std=0.2)
    return model.eval()


@pytest.fixture
def log(log_lines):
    """The log lines of the backbone's loading."""
    return log_lines(' tensors loaded; ')


def save(path, backbone, **others) -> str:
    """As mmengine saves a whole pre-training model."""
    state = {f'backbone.{name}': value for name, value in backbone.state_dict().items()}
    state.update(others or {'head.fc.weight': torch.ones(8, 48)})
    torch.save(dict(state_dict=state, meta=dict(epoch=1)), path)
    return str(path)


def test_tables__own_plus_shared(log):
    source = pretrained()
    target = DTMViT(arch=ARCH, img_size=64)
    target.load_state_dict(source.state_dict())
    state = source.state_dict()
    for name in OWN:
        expected = state[name].numpy().astype(np.float64) + state[SHARED].numpy()
        np.testing.assert_allclose(
            target.state_dict()[name].numpy(), expected, rtol=0, atol=1e-7
        )
    assert len(log) == 1
    assert re.search(
        r'summed: each layer.* 2 layers; resized: none; '
        r'fresh: ln2.bias, ln2.weight; missing: none; '
        r'left over: ln1.bias, ln1.weight, mask_token\.',
        log[0],
    )


@pytest.mark.parametrize('kind', [DTMViT, DTMPretrainViT])
@pytest.mark.parametrize(
    'absent', [None, 'use_rel_pos_bias', 'use_shared_rel_pos_bias']
)
def test_tables__of_either_kind_or_both_compute_the_same_elsewhere(kind, absent):
    """In a model with one kind, or with both and with other values."""
    source = pretrained(**({absent: False} if absent else {}))
    if kind is DTMViT:
        target = DTMViT(arch=ARCH, img_size=64, out_type='raw', final_norm=True).eval()
    else:
        target = pretrained()
    target.load_state_dict(source.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(target(images), source(images), rtol=1e-5, atol=1e-5)


def test_tables__no_place_for_them_is_an_error():
    state = pretrained().state_dict()
    for options in (
        dict(use_rel_pos_bias=False),
        dict(use_rel_pos_bias=False, use_shared_rel_pos_bias=True),
    ):
        with pytest.raises(ValueError, match='Set use_rel_pos_bias=True'):
            DTMViT(arch=ARCH, img_size=64, **options).load_state_dict(state)


def test_tables__summed_and_resized_224_to_512(log):
    """As from pre-training to ADE20K: 14 x 14 to 32 x 32 patches."""
    source = pretrained(img_size=224)
    target = DTMViT(arch=ARCH, img_size=512, out_type='featmap', out_indices=(0, 1))
    result = target.load_state_dict(source.state_dict())
    assert not result.missing_keys and not result.unexpected_keys
    state = source.state_dict()
    for name in OWN:
        total = state[name].numpy().astype(np.float64) + state[SHARED].numpy()
        loaded = target.state_dict()[name].numpy()
        assert loaded.shape == (63 * 63 + 3, 3)
        np.testing.assert_allclose(loaded[-3:], total[-3:], rtol=0, atol=1e-7)
        expected = resize_by_splines(total, (14, 14), (32, 32))
        np.testing.assert_allclose(loaded, expected, rtol=0, atol=1e-6)
    assert 'resized: 3 position tables from 14 x 14 to 32 x 32 patches' in log[0]


def test_tables__grid_that_is_not_square():
    state = pretrained(img_size=(48, 96)).state_dict()
    assert state[SHARED].shape == (5 * 11 + 3, 3)
    with pytest.raises(ValueError, match='58 entries.*pretrain_img_size'):
        DTMViT(arch=ARCH, img_size=64).load_state_dict(state)
    told = DTMViT(
        arch=ARCH, img_size=64, pretrain_img_size=(48, 96), out_type='featmap'
    ).eval()
    told.load_state_dict(state)
    same = DTMViT(arch=ARCH, img_size=(48, 96), out_type='featmap').eval()
    same.load_state_dict(state)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(told(images), same(images))


def test_index_buffers__of_other_libraries_are_ignored(log):
    """mmpretrain's own BEiT checkpoint, its index buffers included."""
    theirs = MODELS.build(
        dict(
            type='mmpretrain.BEiTViT',
            arch=ARCH,
            img_size=64,
            out_type='raw',
            final_norm=True,
        )
    )
    theirs.eval()  # mmpretrain's eval() returns None
    with torch.no_grad():
        for param in theirs.parameters():
            param.normal_(std=0.2)
    ours = DTMViT(arch=ARCH, img_size=64, out_type='raw', final_norm=True).eval()
    assert any('relative_position_index' in name for name in theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-5, atol=1e-5)
    assert 'left over: none' in log[0]


def with_init_cfg(path, tmp_path):
    cfg = classifier_config(
        init_cfg=dict(type='Pretrained', checkpoint=path, prefix='backbone.')
    )
    model = MODELS.build(cfg)
    model.init_weights()
    return model


def with_load_from(path, tmp_path):
    runner = Runner(
        model=classifier_config(),
        work_dir=str(tmp_path / 'run'),
        load_from=path,
        log_level='WARNING',
        experiment_name='load_from',
        default_scope='mmpretrain',
    )
    runner.load_or_resume()
    return runner.model


def with_bare_file(path, tmp_path):
    """A file of the backbone alone, as a converter writes it."""
    state = torch.load(path, weights_only=True)['state_dict']
    bare = tmp_path / 'bare.pth'
    torch.save(
        {
            'state_dict': {
                name.removeprefix('backbone.'): value
                for name, value in state.items()
                if name.startswith('backbone.')
            }
        },
        bare,
    )
    model = MODELS.build(
        classifier_config(init_cfg=dict(type='Pretrained', checkpoint=str(bare)))
    )
    model.init_weights()
    return model


WAYS = [with_init_cfg, with_load_from, with_bare_file]


@pytest.mark.parametrize('img_size', [64, 96])
def test_all_ways__give_the_same_output(tmp_path, img_size):
    path = save(tmp_path / 'pretrained.pth', pretrained(img_size=img_size))
    images = torch.randn(2, 3, 64, 64)
    outputs = []
    for way in WAYS:
        model = way(path, tmp_path)
        model.backbone.eval()
        with torch.no_grad():
            outputs.append(model.backbone(images)[0])
    for output in outputs[1:]:
        assert torch.equal(output, outputs[0])
    start = DTMViT(arch=ARCH, img_size=64).eval()
    assert not torch.allclose(start(images)[0], outputs[0])


@pytest.mark.parametrize('way', WAYS)
def test_all_ways__missing_is_an_error(tmp_path, way):
    backbone = pretrained()
    state = {
        f'backbone.{name}': value
        for name, value in backbone.state_dict().items()
        if name != 'layers.1.attn.q_bias'
    }
    path = tmp_path / 'lacking.pth'
    torch.save(dict(state_dict=state), path)
    with pytest.raises(
        ValueError,
        match=r'lacks layers\.1\.attn\.q_bias\. .*'
        'allow_missing=True',
    ):
        way(str(path), tmp_path)


def test_missing__allowed_keeps_the_start_value(log):
    state = pretrained().state_dict()
    del state['layers.1.attn.q_bias'], state['cls_token']
    model = DTMViT(arch=ARCH, img_size=64, allow_missing=True)
    start = model.cls_token.detach().clone()
    model.load_state_dict(state)
    assert torch.equal(model.cls_token, start)
    assert 'missing: cls_token, layers.1.attn.q_bias;' in log[0]


def test_missing__final_norm_is_an_error():
    """A fine-tuned checkpoint has no norm of tokens: not silently a fresh one."""
    state = DTMViT(arch=ARCH, img_size=64).state_dict()
    with pytest.raises(ValueError, match=r'lacks ln1\.bias, ln1\.weight'):
        DTMViT(arch=ARCH, img_size=64, out_type='raw', final_norm=True).load_state_dict(
            state
        )


def test_missing__mask_token_is_fine(log):
    state = pretrained(use_shared_rel_pos_bias=False).state_dict()
    del state['mask_token']
    pretrained().load_state_dict(state)
    assert 'fresh: mask_token; missing: none' in log[0]


def test_own_checkpoint__resumes_exactly():
    source, target = pretrained(), pretrained()
    target.load_state_dict(source.state_dict())
    for name, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], value)
    # Fine-tuned into fine-tuned, the pooled norm included.
    source, target = (DTMViT(arch=ARCH, img_size=64) for _ in range(2))
    torch.nn.init.normal_(source.ln2.weight)
    target.load_state_dict(source.state_dict())
    assert torch.equal(target.ln2.weight, source.ln2.weight)


def test_the_given_state_dict_is_left_alone():
    state = pretrained(img_size=96).state_dict()
    before = {name: value.clone() for name, value in state.items()}
    DTMViT(arch=ARCH, img_size=64).load_state_dict(state)
    assert state.keys() == before.keys()
    assert all(torch.equal(state[name], value) for name, value in before.items())


def test_other_modules_entries_are_left_alone():
    model = MODELS.build(classifier_config())
    state = {f'backbone.{n}': v for n, v in pretrained().state_dict().items()}
    state |= {'head.fc.weight': torch.ones(3, 48), 'head.fc.bias': torch.ones(3)}
    model.load_state_dict(state)
    assert (model.head.fc.weight == 1).all()


@pytest.mark.parametrize(
    'other, match',
    [
        (
            dict(arch={**ARCH, 'embed_dims': 24}),
            r'cls_token is \(1, 1, 24\), here \(1, 1, '
            r'48\).*more. Set arch',
        ),
        (
            dict(arch={**ARCH, 'feedforward_channels': 48}),
            r'layers\.0\.ffn\.layers\.0\.0\.bias is \(48,\), here \(96,\)',
        ),
        (dict(arch={**ARCH, 'num_layers': 3}), 'it has 3 layers, here 2'),
        (dict(arch={**ARCH, 'num_layers': 1}), 'it has 1 layers, here 2'),
        (
            dict(arch={**ARCH, 'num_heads': 6}),
            r'bias_table is \(52, 6\), here \(52, 3\)',
        ),
        (
            dict(patch_size=8),
            r'projection\.weight is \(48, 3, 8, 8\), here \(48, 3, 16, ',
        ),
        (dict(in_channels=1), r'projection\.weight is \(48, 1, 16, 16\)'),
    ],
)
def test_another_architecture__says_what_differs(other, match):
    state = pretrained(**other).state_dict()
    with pytest.raises(ValueError, match='another architecture: .*' + match):
        DTMViT(arch=ARCH, img_size=64).load_state_dict(state)


@pytest.mark.parametrize(
    'names, match',
    [
        ([], 'has nothing there. For a checkpoint of a bare backbone'),
        (['head.fc.weight'], 'has nothing there'),
        (
            ['layers.0.ln1.weight', 'cls_token'],
            'nothing there. For a checkpoint of a bare',
        ),
        (['backbone.blocks.0.norm1.weight'], 'beit_to_mmdtm'),
        (['backbone.blocks.0.norm1.weight', 'backbone.cls_token'], 'beit_to_mmdtm'),
        (['backbone.model.layers.0.ln1.weight'], r"prefix='model\.'"),
        (['backbone.conv1.weight'], 'has only conv1.weight there'),
    ],
)
def test_not_about_the_backbone__says_so(names, match):
    """mmengine alone would load such a file silently, and change nothing."""
    model = MODELS.build(classifier_config())
    state = {name: torch.zeros(3, 48) for name in names}
    with pytest.raises(ValueError, match=match):
        load_state_dict(model, state)


def test_whole_model_into_a_bare_backbone__says_which_prefix():
    state = {f'backbone.{n}': v for n, v in pretrained().state_dict().items()}
    with pytest.raises(ValueError, match=r"prefix='backbone\.'"):
        DTMViT(arch=ARCH, img_size=64).load_state_dict(state)


def test_head_alone__does_not_touch_the_backbone():
    """Loading a head into the head is none of the backbone's business."""
    model = MODELS.build(classifier_config())
    model.head.load_state_dict(
        {'fc.weight': torch.ones(3, 48), 'fc.bias': torch.ones(3)}
    )
    assert (model.head.fc.weight == 1).all()


def test_half_precision_checkpoint__is_summed_in_float32():
    state = {name: value.half() for name, value in pretrained().state_dict().items()}
    model = DTMViT(arch=ARCH, img_size=64)
    model.load_state_dict(state)
    expected = state[OWN[0]].double() + state[SHARED].double()
    torch.testing.assert_close(
        model.state_dict()[OWN[0]].double(), expected, rtol=0, atol=1e-7
    )
