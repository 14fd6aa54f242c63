"""Every known break of the dependency stacks, and nothing else.

Each function mends one break, says which versions have it, and does nothing
where it is absent. ``apply`` runs them all and may be called repeatedly.
"""

import functools
import importlib.abc
import importlib.metadata
import importlib.util
import os
import pickle
import sys
import types
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import torch

_kept = []  # torch.library definitions live as long as their Library object.


def declare_torchvision_ops() -> None:
    """Let torchvision import beside a torch of another build (CPU-only torch).

    torchvision's compiled operators then cannot load, and its import fails
    on registering their shapes. Declaring the two operators that the import
    names is enough: nothing in mmdtm calls them.
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


class _MissingOps(types.ModuleType):
    """Stands for ``mmcv.ops`` of an mmcv without compiled operators."""

    def __getattr__(self, name: str):
        if name.startswith('__'):
            raise AttributeError(name)
        # Optional imports in mmsegmentation guard against this error alone.
        raise ModuleNotFoundError(
            f'mmcv.ops.{name} needs an mmcv with compiled operators, and this '
            'one has none (mmcv-lite). Install a full mmcv to use it.'
        )


def _unavailable_op(name: str):

    def op(*args, **kwargs):
        raise ModuleNotFoundError(
            f'mmcv.ops.{name} needs an mmcv with compiled operators, and this '
            'one has none (mmcv-lite). Install a full mmcv to use it.'
        )

    return op


def stub_mmcv_ops() -> None:
    """Let mmsegmentation 1.2 import without mmcv's compiled operators.

    ``mmseg.models`` imports two of them unguarded; no model of mmdtm uses
    either.
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
        setattr(ops, name, _unavailable_op(name))
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
    """Let mmengine 0.10.7 find an installed library beside setuptools >= 81.

    That setuptools has no ``pkg_resources`` any more, which every base of
    another library (``_base_ = 'mmpretrain::...'``) needs.
    """
    if importlib.util.find_spec('pkg_resources') is None:
        sys.meta_path.append(_PkgResources())


def name_forked_mmseg() -> None:
    """Let ``_base_ = 'mmseg::...'`` find the forked mmsegmentation.

    The forks' mmengine looks for a distribution called ``mmsegmentation``,
    which theirs is not.
    """
    from mmengine.config.utils import MODULE2PACKAGE

    try:
        importlib.metadata.distribution('mmsegmentation')
    except importlib.metadata.PackageNotFoundError:
        MODULE2PACKAGE['mmseg'] = 'mmseg'


def silence_imports() -> None:
    """Drop two messages that every import of the libraries repeats.

    mmcv warns that it has no deformable attention, and the forks print that
    they found no OneDL: ``print_log`` without a logger prints whatever its
    level. Nothing here uses either.
    """
    import mmengine.logging

    warnings.filterwarnings(
        'ignore', 'Fail to import ``MultiScaleDeformableAttention``', UserWarning
    )
    original = mmengine.logging.print_log
    if hasattr(original, '__wrapped__'):
        return

    @functools.wraps(original)
    def print_log(msg, logger=None, level=20):  # 20 is logging.INFO
        if logger is not None or level >= 20:
            original(msg, logger, level)

    mmengine.logging.print_log = print_log


def _interp2d(x, y, z, kind: str = 'cubic'):
    """The cubic ``scipy.interpolate.interp2d`` on a grid, to the bit."""
    if kind != 'cubic':
        raise ValueError(f"interp2d stands in for kind='cubic' alone, got {kind!r}.")
    from scipy.interpolate import RectBivariateSpline

    spline = RectBivariateSpline(x, y, np.asarray(z).T, kx=3, ky=3)
    return lambda new_x, new_y: spline(new_x, new_y).T


def restore_interp2d() -> None:
    """Let position tables be resized with SciPy >= 1.14.

    mmpretrain and mmsegmentation resize relative position tables with
    ``interp2d``, which that SciPy has no more.
    """
    import scipy
    from mmengine.utils import digit_version

    if digit_version(scipy.__version__) >= digit_version('1.14'):
        scipy.interpolate.interp2d = _interp2d


class _Turn(float):
    """A hue shift whose product with 255 is the step on a circle of 256."""

    def __mul__(self, steps: int) -> int:
        return int(float(self) * steps) % 256


def mend_hue() -> None:
    """Let mmcv < 2.3.6 turn the hue backwards with numpy >= 2.

    It converts the negative step to uint8, which that numpy refuses.
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

    mmengine's start of a process group chooses a CUDA device, whatever the
    backend, and fails where there is none.
    """
    from mmengine.dist import utils

    def without_gpu(init):
        if hasattr(init, '__wrapped__'):
            return init

        @functools.wraps(init)
        def wrapped(backend, **kwargs):
            if torch.cuda.is_available():
                return init(backend, **kwargs)
            with mock.patch.object(torch.cuda, 'set_device', lambda device: None):
                return init('gloo', **kwargs)

        return wrapped

    for name in ('_init_dist_pytorch', '_init_dist_slurm', '_init_dist_mpi'):
        setattr(utils, name, without_gpu(getattr(utils, name)))


def _getattr_of_history(owner: type, name: str):
    """All of ``getattr`` that a log needs, since the whole can reach anything."""
    from mmengine.logging import HistoryBuffer

    if owner is HistoryBuffer and name in ('min', 'max', 'mean', 'current'):
        return getattr(owner, name)
    raise pickle.UnpicklingError(f'getattr({owner!r}, {name!r})')


def checkpoint_globals() -> list:
    """What a Runner's checkpoint holds beside tensors: logs and numpy numbers."""
    from mmengine.logging import HistoryBuffer

    core = np._core if hasattr(np, '_core') else np.core
    rebuild = [core.multiarray._reconstruct, core.multiarray.scalar]
    kinds = 'f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 ?'.split()
    return [
        HistoryBuffer,
        (_getattr_of_history, 'builtins.getattr'),
        np.ndarray,
        np.dtype,
        *{type(np.dtype(kind)) for kind in kinds},
        # numpy 2 renamed numpy.core; files may come from either.
        *(
            (f, f'numpy.{c}.multiarray.{f.__name__}')
            for f in rebuild
            for c in ('core', '_core')
        ),
    ]


def refusal(error: pickle.UnpicklingError) -> str:
    """Why torch's weights-only loader refused a file.

    torch's own words go on to recommend loading without protection.
    """
    return str(error.__context__ or error).split('. Please use')[0]


def _read_checkpoint(read, name: str):
    """Calls ``read`` with nothing but a checkpoint's own types allowed."""
    try:
        with torch.serialization.safe_globals(checkpoint_globals()):
            loaded = read()
    except pickle.UnpicklingError as error:
        raise ValueError(
            f'{name} is not loaded: it is no checkpoint, or holds more than weights '
            f'and logs ({refusal(error)}), and unpickling that could run any code. If '
            'you trust where it comes from, keep its tensors alone: '
            'torch.save(model.state_dict(), ...).'
        ) from None
    except (RuntimeError, EOFError, LookupError, UnicodeError) as error:
        raise ValueError(
            f'{name} is not loaded; take another one if it is damaged, or no '
            f'checkpoint. What torch says: {error!r}'
        ) from error
    meta = loaded.get('meta') if isinstance(loaded, dict) else None
    if isinstance(meta, dict):
        meta.pop('config', None)  # Runner.resume would run it as a Python file
    return loaded


def load_weights_only() -> None:
    """Let no checkpoint run code, and Runner's own ones load.

    mmengine 0.10.7 leaves ``weights_only`` to torch, which then refuses the
    logs in a Runner's checkpoint; the forks' fall back to full unpickling
    when torch refuses a file, and allow ``getattr``; both unpickle
    what they download.
    """
    from mmengine.runner import checkpoint

    def load(file, map_location=None, weights_only=True):
        return _read_checkpoint(
            lambda: torch.load(file, map_location=map_location, weights_only=True),
            file if isinstance(file, (str, os.PathLike)) else 'The checkpoint',
        )

    def load_url(url, **kwargs):
        return _read_checkpoint(
            lambda: torch.hub.load_state_dict_from_url(
                url, weights_only=True, **kwargs
            ),
            url,
        )

    class Torch(types.ModuleType):
        """torch, but for ``load``."""

        def __getattr__(self, name: str):
            return getattr(torch, name)

    checkpoint.torch = Torch('torch')
    checkpoint.torch.load = checkpoint._safe_torch_load = load
    checkpoint.load_url = load_url


def write_files_whole() -> None:
    """Let no half-written checkpoint carry a checkpoint's name.

    mmengine writes in place, so a run killed while saving leaves half a file,
    over the one that was there. Here the name is given once all is on disk.
    """
    from mmengine.fileio import LocalBackend

    def put(self, obj: bytes, filepath) -> None:
        filepath = Path(filepath)
        filepath.parent.mkdir(parents=True, exist_ok=True)
        unfinished = filepath.with_name(f'{filepath.name}.tmp')
        try:
            with open(unfinished, 'wb') as file:
                file.write(obj)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, filepath)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise

    LocalBackend.put = put


class _RemoveLater:
    """A file backend that only takes note of what is to be removed."""

    def __init__(self, backend):
        self._backend = backend
        self.outdated = []

    def __getattr__(self, name: str):
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self.outdated.append((self._backend.remove, path))

    def rmtree(self, path: str) -> None:
        self.outdated.append((self._backend.rmtree, path))


def save_before_removing() -> None:
    """Let ``CheckpointHook`` remove an old checkpoint once the new one stands.

    mmengine removes first: with ``max_keep_ckpts=1``, or the best checkpoint,
    a run that dies while saving has none left.
    """
    from mmengine.hooks import CheckpointHook

    def removing_last(save):
        if hasattr(save, '__wrapped__'):
            return save

        @functools.wraps(save)
        def wrapped(self, *args, **kwargs):
            backend = self.file_backend
            self.file_backend = later = _RemoveLater(backend)
            try:
                save(self, *args, **kwargs)
            finally:
                self.file_backend = backend
            best = getattr(self, 'best_ckpt_path_dict', {})
            kept = [self.last_ckpt, getattr(self, 'best_ckpt_path', None)]
            for remove, path in later.outdated:
                if path not in kept and path not in best.values():
                    remove(path)

        return wrapped

    for name in ('_save_checkpoint_with_step', '_save_best_checkpoint'):
        setattr(CheckpointHook, name, removing_last(getattr(CheckpointHook, name)))


@functools.cache
def apply() -> None:
    """Mend all breaks, once."""
    declare_torchvision_ops()
    stub_mmcv_ops()
    provide_pkg_resources()
    name_forked_mmseg()
    silence_imports()
    restore_interp2d()
    mend_hue()
    init_processes_without_gpu()
    load_weights_only()
    write_files_whole()
    save_before_removing()
