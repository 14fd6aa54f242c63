"""What importing the plugin brings in, and what it leaves for later."""

import subprocess
import sys

import pytest

SCRIPT = """
import sys

import mmdtm.plugin
from mmpretrain.registry import MODELS

from mmdtm.models.backbones import DTMViT
from mmdtm.models.target_generators import OpenCLIPGenerator, SLIPGenerator

MODELS.build(dict(type='DTMViT', out_type='featmap', **DTMViT.smoke))
assert not {'open_clip', 'timm', 'sklearn'} & set(sys.modules)
for teacher in (SLIPGenerator, OpenCLIPGenerator):
    MODELS.build(dict(type=teacher.__name__, **teacher.smoke))
assert {'open_clip', 'timm'} <= set(sys.modules)
"""


@pytest.mark.slow
def test_teachers_libraries_are_imported_when_a_teacher_is_built():
    subprocess.run([sys.executable, '-W', 'ignore', '-c', SCRIPT], check=True)
