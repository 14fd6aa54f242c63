"""The analysis tools as modules, and a small CLIP with images for them."""

import mmdtm.plugin  # noqa: F401  # isort: skip

import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_run
from PIL import Image
from tiny_clip import TEMPLATES, save_tiny_clip
from tiny_run import ROOT


@pytest.fixture(scope='session')
def load_tool():
    """Import a tool by its file's name."""
    # As when run as a script: the tools' shared options lie beside them.
    folder = str(ROOT / 'tools/analysis')
    sys.path.insert(0, folder)
    yield lambda name: tiny_run.load_tool(f'analysis/{name}.py')
    sys.path.remove(folder)


@pytest.fixture(scope='session')
def clip_args(tmp_path_factory) -> list[str]:
    """Options that choose the small CLIP and short texts."""
    config, weights, _ = save_tiny_clip(tmp_path_factory.mktemp('clip'))
    options = ['--model', 'tiny', '--model-config', config, '--pretrained', weights]
    return options + ['--device', 'cpu']


@pytest.fixture(scope='session')
def text_args() -> list[str]:
    return ['--templates', *TEMPLATES]


@pytest.fixture
def world(tmp_path) -> Path:
    """Class folders: three of ImageNet's with two images each."""
    root = tmp_path / 'world'
    for label, name in enumerate(['n01440764', 'hen', 'ostrich']):
        folder = root / name
        folder.mkdir(parents=True)
        for number in range(2):
            pixels = np.random.default_rng(10 * label + number)
            low = pixels.integers(0, 256, (5, 6, 3), np.uint8)
            Image.fromarray(low).resize((72, 60)).save(folder / f'{number}.png')
    return root
