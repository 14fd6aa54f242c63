"""BEiT v2's tokenizer as a frozen generator of codes."""

import pytest
import torch
from mmpretrain.models.selfsup import VQKD
from mmpretrain.registry import MODELS
from tiny import ARCH, shake

from mmdtm.models.selfsup import VQKDGenerator

SIZES = dict(arch=ARCH, img_size=64, num_embed=64, embed_dims=8)


@pytest.fixture
def vqkd() -> VQKD:
    """mmpretrain's tokenizer, with the decoder, away from its initialisation."""
    encoder = dict(
        arch=ARCH,
        img_size=64,
        out_type='featmap',
        final_norm=True,
        use_abs_pos_emb=True,
        use_rel_pos_bias=False,
        layer_scale_init_value=0.0,
    )
    decoder = dict(encoder, arch=dict(ARCH, num_layers=1))
    network = VQKD(encoder, decoder, 64, 8, quantize_kmeans_init=False)
    shake(network)
    return network.eval()


@pytest.fixture
def vqkd_file(vqkd, tmp_path) -> str:
    path = tmp_path / 'vqkd.pth'
    torch.save(dict(state_dict=vqkd.state_dict()), path)
    return str(path)


def test_codes_are_mmpretrains(vqkd, vqkd_file):
    generator = VQKDGenerator(vqkd_file, **SIZES)
    images = torch.randn(5, 3, 64, 64)
    codes = generator(images)
    assert codes.dtype == torch.int64 and codes.shape == (5, 16)
    with torch.no_grad():
        assert torch.equal(codes, vqkd(images))
    assert len(codes.unique()) > 10


def test_it_is_registered_and_normalises_as_the_tokenizer(vqkd_file):
    generator = MODELS.build(dict(type='VQKDGenerator', checkpoint=vqkd_file, **SIZES))
    assert generator.mean == generator.std == [127.5] * 3
    assert generator.grid_size == (4, 4)


def test_the_default_is_the_published_size():
    generator = VQKDGenerator(random_weights=True)
    encoder = generator.teacher.encoder
    assert (encoder.embed_dims, len(encoder.layers)) == (768, 12)
    assert generator.teacher.quantize.embedding.weight.shape == (8192, 32)


def test_a_file_with_other_keys_is_refused(tmp_path):
    path = tmp_path / 'other.pth'
    torch.save({'encoder.blocks.0.norm1.weight': torch.ones(3)}, path)
    with pytest.raises(ValueError, match='missing: .*cls_token.*not expected'):
        VQKDGenerator(str(path), **SIZES)


def test_a_file_of_another_size_is_refused(vqkd_file):
    with pytest.raises(ValueError, match='of another shape: quantize'):
        VQKDGenerator(vqkd_file, **dict(SIZES, num_embed=32))
