"""Teachers: frozen networks that give the target tokens."""

from mmdtm.models.target_generators.base import TargetGenerator
from mmdtm.models.target_generators.openclip_generator import OpenCLIPGenerator

__all__ = ['OpenCLIPGenerator', 'TargetGenerator']
