"""mmdtm: Masked Image Modeling via Dynamic Token Morphing for OpenMMLab.

This file imports nothing, so that ``mmdtm.morphing`` needs torch alone.
``import mmdtm.plugin`` registers the models into mmpretrain.
"""

__version__ = '0.1.0'
