"""Every known break of the dependency stacks, and nothing else.

Each function mends one break, says which versions have it and where upstream
it is, and does nothing where it is absent. :mod:`mmdtm.prepare` runs them all,
once. tests/test_compat.py fails when one of them is no longer needed.
"""

import functools
import importlib.abc
import importlib.metadata
import importlib.util
import sys
import types
from unittest import mock

import numpy as np
import torch

_kept: list = []  # torch.library definitions live as long as their Library object.


def declare_torchvision_ops() -> None:
    """Let torchvision import beside a torch of another build (CPU-only torch).

    torchvision's compiled operators then cannot load, and its import fails
    on registering their shapes (torchvision 0.17 to 0.28;
    pytorch/pytorch#122494). Declaring the two operators that the import names is
    enough: nothing in mmdtm calls them.
    """
    if 'torchvision' in sys.modules:
        return
    if importlib.util.find_spec('torchvision') is None:
        return
    try:
        import torchvision  # noqa: F401

        return
    except RuntimeError as error:
        if 'torchvision::nms' not in str(error):
            raise
        for name in [n for n in sys.modules if n.split('.')[0] == 'torchvision']:
            del sys.modules[name]
    library = torch.library.Library('torchvision', 'DEF')
    boxes = '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor'
    library.define('nms' + boxes)
    library.define('qnms' + boxes)
    _kept.append(library)
    import torchvision  # noqa: F401


def _unavailable_op(name: str, *args, **kwargs):
    # Optional imports in mmsegmentation guard against this error alone.
    raise ModuleNotFoundError(
        f'mmcv.ops.{name} needs an mmcv with compiled operators, and this one has '
        'none (mmcv-lite). Install a full mmcv to use it.'
    )


class _MissingOps(types.ModuleType):
    """Stands for ``mmcv.ops`` of an mmcv without compiled operators."""

    def __getattr__(self, name: str):
        if name.startswith('__'):
            raise AttributeError(name)
        _unavailable_op(name)


def stub_mmcv_ops() -> None:
    """Let mmsegmentation 1.2 import without mmcv's compiled operators.

    ``mmseg.models`` imports two of them unguarded, in decode_heads/san_head.py
    and losses/focal_loss.py (mmsegmentation to 1.2.2;
    open-mmlab/mmsegmentation#871); no model of mmdtm uses either.
    """
    if 'mmcv.ops' in sys.modules or importlib.util.find_spec('mmcv') is None:
        return
    if importlib.util.find_spec('mmcv._ext') is not None:
        return
    from mmengine import __version__ as mmengine_version
    from mmengine.utils import digit_version

    if digit_version(mmengine_version) >= digit_version('0.10.8'):
        return  # the forks guard these imports themselves
    ops = _MissingOps('mmcv.ops')
    for name in ('point_sample', 'sigmoid_focal_loss'):
        setattr(ops, name, functools.partial(_unavailable_op, name))
    sys.modules['mmcv.ops'] = ops


class _PkgResources(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """What mmengine asks of ``pkg_resources``, from ``importlib.metadata``."""

    class Distribution:
        def __init__(self, name: str):
            self._files = importlib.metadata.distribution(name)
            self.location = str(self._files.locate_file(''))

        def get_metadata(self, name: str) -> str | None:
            return self._files.read_text(name)

        has_metadata = get_metadata

    def find_spec(self, name, path=None, target=None):
        if name == 'pkg_resources':
            return importlib.util.spec_from_loader(name, self)
        return None

    def exec_module(self, module):
        module.DistributionNotFound = importlib.metadata.PackageNotFoundError
        module.get_distribution = self.Distribution


def provide_pkg_resources() -> None:
    """Let mmengine find an installed library beside setuptools >= 82.

    That setuptools has no ``pkg_resources`` any more, which every base of
    another library (``_base_ = 'mmpretrain::...'``) needs in
    mmengine/utils/package_utils.py (mmengine to 0.10.7; not the forks).
    """
    if importlib.util.find_spec('pkg_resources') is None:
        sys.meta_path.append(_PkgResources())


def name_forked_mmseg() -> None:
    """Let ``_base_ = 'mmseg::...'`` find the forked mmsegmentation.

    The forks' mmengine (to 0.10.12) looks for a distribution called
    ``mmsegmentation``, which theirs is not; so says the table in
    mmengine/config/utils.py.
    """
    from mmengine.config.utils import MODULE2PACKAGE

    try:
        importlib.metadata.distribution('mmsegmentation')
    except importlib.metadata.PackageNotFoundError:
        MODULE2PACKAGE['mmseg'] = 'mmseg'


def _interp2d(x, y, z, kind: str = 'cubic'):
    """The cubic ``scipy.interpolate.interp2d`` on a grid, to the bit."""
    if kind != 'cubic':
        raise ValueError(
            f"interp2d of kind {kind!r} is gone from scipy, and mmdtm replaces 'cubic' "
            'alone. Call RectBivariateSpline, or install scipy<1.14.'
        )
    from scipy.interpolate import RectBivariateSpline

    spline = RectBivariateSpline(x, y, np.asarray(z).T, kx=3, ky=3)
    return lambda new_x, new_y: spline(new_x, new_y).T


def restore_interp2d() -> None:
    """Let position tables be resized with SciPy >= 1.14.

    That SciPy has no ``interp2d`` any more, with which position tables are
    resized in mmpretrain/models/utils/embed.py (to 1.2.0, the forks' to 1.3.6)
    and mmseg/models/backbones/beit.py (to 1.2.2, the forks' to 1.4.2).
    """
    import scipy
    from mmengine.utils import digit_version

    if digit_version(scipy.__version__) >= digit_version('1.14'):
        scipy.interpolate.interp2d = _interp2d


class _Turn(float):
    """A hue shift whose product with 255 is the step on a circle of 256."""

    def __mul__(self, steps: float) -> int:
        return int(float(self) * steps) % 256


def mend_hue() -> None:
    """Let mmcv < 2.3.6 turn the hue backwards with numpy >= 2.

    It converts the negative step to uint8, which that numpy refuses
    (VBTI-development/onedl-mmcv#41, mended in the forks' 2.3.6; mmcv to 2.2.0).
    """
    import mmcv

    original = mmcv.adjust_hue
    try:
        original(np.zeros((1, 1, 3), np.uint8), -0.1)
        return
    except OverflowError:
        pass

    @functools.wraps(original)
    def adjust_hue(img, hue_factor, backend=None):
        return original(img, _Turn(hue_factor), backend)

    mmcv.adjust_hue = mmcv.image.adjust_hue = adjust_hue


def init_processes_without_gpu() -> None:
    """Let processes on CPUs talk to each other, through gloo.

    mmengine's start of a process group (mmengine/dist/utils.py; to 0.10.7, the
    forks' to 0.10.12) chooses a CUDA device, whatever the backend, and fails
    where there is none.
    """
    from mmengine.dist import utils

    def without_gpu(init):
        @functools.wraps(init)
        def wrapped(backend, **kwargs):
            if torch.cuda.is_available():
                return init(backend, **kwargs)
            with mock.patch.object(torch.cuda, 'set_device', lambda device: None):
                return init('gloo', **kwargs)

        return wrapped

    for name in ('_init_dist_pytorch', '_init_dist_slurm', '_init_dist_mpi'):
        setattr(utils, name, without_gpu(getattr(utils, name)))


def apply() -> None:
    """Mend all breaks."""
    declare_torchvision_ops()
    stub_mmcv_ops()
    provide_pkg_resources()
    name_forked_mmseg()
    restore_interp2d()
    mend_hue()
    init_processes_without_gpu()
