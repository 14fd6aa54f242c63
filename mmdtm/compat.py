"""Every known break of the dependency stacks, and nothing else.

Each function mends one break, says which versions have it, and does nothing
where it is absent. ``apply`` runs them all and may be called repeatedly.
"""

import importlib.util
import sys
import types

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
            'one has none (mmcv-lite). Install a full mmcv to use it.')


def _unavailable_op(name: str):

    def op(*args, **kwargs):
        raise ModuleNotFoundError(
            f'mmcv.ops.{name} needs an mmcv with compiled operators, and this '
            'one has none (mmcv-lite). Install a full mmcv to use it.')

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


def apply() -> None:
    """Mend all breaks; idempotent."""
    declare_torchvision_ops()
    stub_mmcv_ops()
