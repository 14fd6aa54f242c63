"""Fixtures shared by all tests."""

import gc
import logging
import os
from pathlib import Path

# Tests run side by side, and their models are too small to share out. Read when
# torch is imported, here and in what the tests start.
os.environ.setdefault('OMP_NUM_THREADS', '1')
# They are about the CPU, and start two processes wherever they run.
os.environ.setdefault('CUDA_VISIBLE_DEVICES', '')

import pytest  # noqa: E402
import torch  # noqa: E402
from browser import browser  # noqa: E402, F401  (a fixture)
from hypothesis import Phase, settings  # noqa: E402
from tiny import draw_classes  # noqa: E402

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
def photos(tmp_path_factory) -> Path:
    """Folder in ImageNet's layout: of noise, unless MMDTM_PHOTOS names another."""
    if 'MMDTM_PHOTOS' in os.environ:
        return Path(os.environ['MMDTM_PHOTOS'])
    root = tmp_path_factory.mktemp('photos')
    names = ['n01440764', 'n01443537', 'n15075141']
    for split in ('train', 'val'):
        draw_classes(
            root / split,
            dict.fromkeys(names, (128, 128, 128)),
            each=4,
            size=(90, 120),
            noise=127,
            suffix='JPEG',
        )
    return root


@pytest.fixture
def fast_init(monkeypatch):
    """No random numbers for millions of weights whose values do not matter."""
    for name in ('trunc_normal_', 'kaiming_uniform_'):
        monkeypatch.setattr(torch.nn.init, name, lambda tensor, **_: tensor)


@pytest.fixture
def log_lines():
    """From a text to the lines that the current logger gets with it."""
    from mmengine.logging import MMLogger

    logger, handlers = MMLogger.get_current_instance(), []

    def listen(text: str) -> list[str]:
        lines, handler = [], logging.Handler(logging.INFO)
        handler.addFilter(lambda record: text in record.getMessage())
        handler.emit = lambda record: lines.append(record.getMessage())
        logger.addHandler(handler)
        handlers.append(handler)
        return lines

    yield listen
    for handler in handlers:
        logger.removeHandler(handler)


@pytest.fixture(autouse=True)
def _scope():
    """No test leaves its default scope to the next."""
    from mmengine.registry import DefaultScope
    from tiny_run import forget_new

    with forget_new(DefaultScope):
        yield


def pytest_collection_modifyitems(items) -> None:
    """The fast tests come first: what they find need not wait for the slow ones."""
    items.sort(key=lambda item: item.get_closest_marker('slow') is not None)


def pytest_collection_finish() -> None:
    """Spare what is imported the garbage collector, which mmengine's data sets call.

    It would go through a million objects for each of them, in half a second.
    """
    gc.freeze()
