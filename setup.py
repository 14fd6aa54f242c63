"""Installation of mmdtm: ranges here, the tested pins in requirements/."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
INIT = (ROOT / 'mmdtm/__init__.py').read_text()
VERSION = re.search(r"__version__ = '(.+)'", INIT)[1]

# The import names mmengine, mmcv, mmpretrain, mmseg have two homes; install
# one extra of the two, never both.
ONEDL = [
    'onedl-mmengine>=0.10.12,<0.11',
    'onedl-mmcv>=2.3.6,<3',  # earlier ones overflow on hue jitter, numpy 2
    'onedl-mmpretrain>=1.3.6,<2',
    'onedl-mmsegmentation>=1.4.2,<2',
]
OPENMMLAB = [
    'mmengine>=0.10.7,<0.11',
    'mmcv-lite>=2.0,<2.2',  # mmsegmentation 1.2.2 refuses mmcv 2.2
    'mmpretrain>=1.2,<1.3',
    'mmsegmentation>=1.2.2,<1.3',
    'setuptools<81',  # mmengine 0.10.7 imports pkg_resources
]
TESTS = [
    'pytest>=8',
    'pytest-xdist>=3.5',
    'pytest-cov>=5',
    'hypothesis>=6.100',
    'transformers>=4.40',
    'ruff>=0.12',
    'mypy>=1.15',
]
DOCS = ['mkdocs>=1.6', 'mkdocs-material>=9.5']

setup(
    name='mmdtm',
    version=VERSION,
    description='Masked Image Modeling via Dynamic Token Morphing (DTM) for OpenMMLab',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['mmdtm', 'mmdtm.*']),
    package_data={'mmdtm.report': ['page.html', 'paper.json']},
    python_requires='>=3.10',
    install_requires=[
        'torch>=2.7',  # weights-only loading with named safe globals
        'torchvision>=0.22',
        'timm>=1.0.15',
        'open_clip_torch>=2.32',
        'numpy>=1.24',
        'scipy>=1.10',
        'scikit-learn>=1.3',
        'matplotlib>=3.8',
        'rich>=13',
        'safetensors>=0.4',
        'tensorboard>=2.14',
    ],
    extras_require={
        'onedl': ONEDL,
        'openmmlab': OPENMMLAB,
        'tests': TESTS,
        'docs': DOCS,
    },
)
