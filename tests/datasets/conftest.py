"""Images without labels."""

import pytest
from mmpretrain.registry import DATASETS
from tiny_run import draw_images

import mmdtm.plugin  # noqa: F401


@pytest.fixture
def build():
    """Build a dataset of the images below root/train."""

    def build_dataset(root, **options):
        cfg = dict(
            type='UnlabeledImages',
            data_root=str(root),
            data_prefix='train',
            pipeline=[dict(type='LoadWholeImage'), dict(type='PackInputs')],
            serialize_data=False,
        )
        return DATASETS.build(cfg | options)

    return build_dataset


@pytest.fixture
def paths():
    """List the paths of a dataset's images."""
    return lambda data: [data.get_data_info(i)['img_path'] for i in range(len(data))]


@pytest.fixture
def root(tmp_path):
    """8 images."""
    draw_images(tmp_path, classes=2, each=4)
    return tmp_path
