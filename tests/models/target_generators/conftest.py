"""A CLIP small enough to build in milliseconds."""

import mmdtm.plugin  # noqa: F401  # isort: skip

import json

import open_clip
import pytest
import torch
from tiny import shake

CONFIG = {
    'embed_dim': 16,
    'vision_cfg': {
        'image_size': 32,
        'patch_size': 8,
        'width': 32,
        'head_width': 16,
        'layers': 2,
    },
    'text_cfg': {
        'context_length': 8,
        'vocab_size': 64,
        'width': 32,
        'heads': 2,
        'layers': 1,
    },
}


@pytest.fixture
def clip_config() -> dict:
    """open_clip's config of the small CLIP; a fresh copy."""
    return json.loads(json.dumps(CONFIG))


@pytest.fixture
def clip(clip_config) -> open_clip.CLIP:
    """A small CLIP of open_clip with weights away from their initialisation."""
    model = open_clip.CLIP(**clip_config)
    shake(model)
    return model.eval()


@pytest.fixture
def clip_file(clip, tmp_path) -> str:
    """The small CLIP's weights, as open_clip's users save them."""
    path = tmp_path / 'tiny.pt'
    torch.save(clip.state_dict(), path)
    return str(path)
