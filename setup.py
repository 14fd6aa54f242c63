"""Puts configs, tools and the model index into the package, as OpenMMLab's have them.

All else about the package is in pyproject.toml.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
SHIPPED = ('configs', 'tools', 'examples', 'model-index.yml')


class BuildWithMim(build_py):
    """Adds ``mmdtm/.mim``, where mim and ``_base_ = 'mmdtm::...'`` look.

    A wheel gets copies; an editable installation links, so that an edited config
    is the one in use.
    """

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            mim = ROOT / 'mmdtm/.mim'
            mim.mkdir(exist_ok=True)
            for name in SHIPPED:
                link = mim / name
                link.unlink(missing_ok=True)
                link.symlink_to(Path('../..') / name)
            return
        mim = Path(self.build_lib) / 'mmdtm/.mim'
        shutil.rmtree(mim, ignore_errors=True)
        ignored = shutil.ignore_patterns('__pycache__', '*.pyc')
        for name in SHIPPED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, mim / name, ignore=ignored)
            else:
                shutil.copy2(ROOT / name, mim / name)


setup(cmdclass={'build_py': BuildWithMim})
