"""mmdtm: Masked Image Modeling via Dynamic Token Morphing for OpenMMLab.

This file imports nothing, so that ``mmdtm.morphing`` needs torch alone.
``import mmdtm.plugin`` registers the models into mmpretrain, and so does the first use
of ``mmdtm.get_config`` or ``mmdtm.get_model``.
"""

__version__ = '0.1.0'


def __getattr__(name: str):
    if name in ('get_config', 'get_model'):
        import mmdtm.plugin  # noqa: F401
        from mmdtm import hub

        return getattr(hub, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
