"""Fixtures shared by all tests."""

import os
from pathlib import Path

# Tests run side by side, and their models are too small to share out. Read when
# torch is imported, here and in what the tests start.
os.environ.setdefault('OMP_NUM_THREADS', '1')
# They are about the CPU, and start two processes wherever they run.
os.environ.setdefault('CUDA_VISIBLE_DEVICES', '')

import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import Phase, settings  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]

# For `make mutation`, where most runs are to fail: the same examples each time, and
# no search for a smaller one.
settings.register_profile(
    'mutation', phases=[Phase.explicit, Phase.generate], derandomize=True
)


@pytest.fixture(autouse=True)
def _seed():
    """Every test starts from the same random state."""
    torch.manual_seed(0)


@pytest.fixture(scope='session')
def photos() -> Path:
    """Folder of real photographs in ImageNet layout (train/, val/).

    ``MMDTM_PHOTOS`` names another place; the test is skipped where there are
    none.
    """
    folder = Path(
        os.environ.get('MMDTM_PHOTOS', ROOT.parent / 'shared/data/imagenet-sample')
    )
    if not (folder / 'train').is_dir():
        pytest.skip(f'no photographs under {folder}')
    return folder


@pytest.fixture(autouse=True)
def _scope():
    """No test leaves its default scope to the next."""
    from mmengine.registry import DefaultScope
    from tiny_run import forget_new

    with forget_new(DefaultScope):
        yield
