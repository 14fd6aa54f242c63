"""SLIPGenerator on files with the authors' key names."""

import argparse

import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS
from timm.models import VisionTransformer
from tiny import shake

from mmdtm.models.target_generators import SLIPGenerator
from mmdtm.models.target_generators.slip_generator import ARCHS

ARCH = dict(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2)


@pytest.fixture
def slip():
    """The image tower and its projection."""
    visual = VisionTransformer(num_classes=0, **ARCH).eval()
    shake(visual)
    return visual, torch.randn(24, 16)


def checkpoint(slip, prefix='module.'):
    """What SLIP's training program saves."""
    visual, projection = slip
    state = {f'visual.{key}': value for key, value in visual.state_dict().items()}
    state |= {
        'image_projection': projection,
        'text_projection': torch.randn(8, 16),
        'positional_embedding': torch.randn(4, 8),
        'logit_scale': torch.tensor(2.0),
        'ln_final.weight': torch.ones(8),
        'transformer.resblocks.0.ln_1.weight': torch.ones(8),
        'image_mlp.layer1.weight': torch.randn(4, 24),
        'image_mlp.bn1.num_batches_tracked': torch.tensor(3),
    }
    return {
        'epoch': 25,
        'state_dict': {prefix + key: value for key, value in state.items()},
        'optimizer': {'state': {}, 'param_groups': []},
        'scaler': {'scale': 1.0},
        'best_acc1': np.float64(42.8),
        'args': argparse.Namespace(model='SLIP_VITB16', betas=(0.9, 0.98)),
    }


@pytest.mark.parametrize('prefix', ['module.', ''])
def test_authors_file_loads_and_gives_the_tokens_by_hand(prefix, slip, tmp_path):
    path = str(tmp_path / 'slip_base_25ep.pt')
    torch.save(checkpoint(slip, prefix), path)
    generator = MODELS.build(dict(type='SLIPGenerator', checkpoint=path, arch=ARCH))
    images = torch.randn(2, 3, 32, 32)
    tokens = generator(images)

    visual, projection = slip
    with torch.no_grad():
        x = visual.patch_embed(images)
        x = torch.cat([visual.cls_token.expand(2, -1, -1), x], dim=1)
        x = x + visual.pos_embed
        for block in visual.blocks:
            x = block(x)
        expected = visual.norm(x)[:, 1:] @ projection
    assert generator.out_channels == 16
    torch.testing.assert_close(tokens, expected)
    assert generator.mean == [255 * x for x in (0.485, 0.456, 0.406)]
    assert generator.std == [255 * x for x in (0.229, 0.224, 0.225)]


def test_sizes_are_the_published_ones():
    # As the published models: 384, 768 and 1024 wide, 16-pixel patches of 224.
    assert [ARCHS[name]['embed_dim'] for name in ('small', 'base', 'large')] == [
        384,
        768,
        1024,
    ]
    with torch.device('meta'):
        generator = SLIPGenerator(arch='base', random_weights=True)
    assert generator.grid_size == (14, 14) and generator.out_channels == 512


def test_files_with_other_keys_are_refused(slip, tmp_path):
    path = str(tmp_path / 'other.pt')
    torch.save({'state_dict': {'module.visual.cls_token': torch.zeros(1)}}, path)
    with pytest.raises(ValueError, match='not one of SLIP.*holds.*image_projection'):
        SLIPGenerator(path, ARCH)

    content = checkpoint(slip)
    del content['state_dict']['module.visual.norm.bias']
    torch.save(content, path)
    with pytest.raises(ValueError, match=r'other.pt is not SLIP .*missing: norm\.bias'):
        SLIPGenerator(path, ARCH)

    torch.save(checkpoint(slip), path)
    with pytest.raises(ValueError, match=r'cls_token is \(1, 1, 24\), here'):
        SLIPGenerator(path, {**ARCH, 'embed_dim': 32})


def test_an_unknown_size_is_refused():
    with pytest.raises(ValueError, match='small, base, large'):
        SLIPGenerator('x.pt', arch='huge')
