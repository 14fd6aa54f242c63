"""What pip installs is what a clone has: configs, tools and the model index too."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ('configs', 'tools', 'examples')
SOURCES = (
    'mmdtm',
    *SHIPPED,
    *('model-index.yml', 'pyproject.toml', 'setup.py'),
    *('MANIFEST.in', 'README.md', 'LICENSE'),
)


def files_below(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob('*')
        if path.is_file() and not {'.mim', '__pycache__'} & set(path.parts)
    }


@pytest.fixture(scope='module')
def dists(tmp_path_factory):
    """A wheel and a source distribution of a copy of the tree."""
    folder = tmp_path_factory.mktemp('package')
    ignored = shutil.ignore_patterns('__pycache__', '.mim')
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder / name)
    build = 'from setuptools import build_meta as b; b.build_{}("dist")'
    for kind in ('wheel', 'sdist'):
        subprocess.run(
            [sys.executable, '-c', build.format(kind)],
            cwd=folder,
            check=True,
            capture_output=True,
        )
    (wheel,) = (folder / 'dist').glob('*.whl')
    (sdist,) = (folder / 'dist').glob('*.tar.gz')
    return wheel, sdist


@pytest.mark.slow
def test_wheel_has_all_that_a_clone_has(dists):
    with zipfile.ZipFile(dists[0]) as wheel:
        names = {name for name in wheel.namelist() if '.dist-info/' not in name}
        about = next(n for n in wheel.namelist() if n.endswith('/METADATA'))
        metadata = HeaderParser().parsestr(wheel.read(about).decode())
    expected = {f'mmdtm/{name}' for name in files_below(ROOT / 'mmdtm')}
    for folder in SHIPPED:
        expected |= {
            f'mmdtm/.mim/{folder}/{name}' for name in files_below(ROOT / folder)
        }
    assert names == {*expected, 'mmdtm/.mim/model-index.yml'}
    assert 'mmdtm/py.typed' in names
    assert metadata['License-Expression'] == 'Apache-2.0'
    extras = {'onedl', 'openmmlab', 'onnx', 'tests', 'docs'}
    assert set(metadata.get_all('Provides-Extra')) == extras
    for package in ('mkdocs-material', 'pytest'):
        (asked,) = (
            r for r in metadata.get_all('Requires-Dist') if r.startswith(f'{package}>')
        )
        assert 'extra ==' in asked, f'{package} is for some users only'


@pytest.mark.slow
def test_source_distribution_builds_the_same_wheel(dists, tmp_path):
    with tarfile.open(dists[1]) as archive:
        archive.extractall(tmp_path, filter='data')
    (source,) = tmp_path.iterdir()
    build = 'from setuptools import build_meta as b; b.build_wheel("dist")'
    subprocess.run(
        [sys.executable, '-c', build], cwd=source, check=True, capture_output=True
    )
    (again,) = (source / 'dist').glob('*.whl')
    with zipfile.ZipFile(dists[0]) as old, zipfile.ZipFile(again) as new:
        assert sorted(old.namelist()) == sorted(new.namelist())
