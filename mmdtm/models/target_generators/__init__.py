"""Teachers: frozen networks that give the target tokens."""

from mmdtm.models.target_generators.base import TargetGenerator
from mmdtm.models.target_generators.concat import ConcatGenerator
from mmdtm.models.target_generators.frozen import Tower
from mmdtm.models.target_generators.layerwise import LayerwiseMorphingGenerator
from mmdtm.models.target_generators.openclip_generator import OpenCLIPGenerator
from mmdtm.models.target_generators.perturbed import PerturbedGenerator
from mmdtm.models.target_generators.slip_generator import SLIPGenerator
from mmdtm.models.target_generators.timm_generator import TimmGenerator

__all__ = [
    'ConcatGenerator',
    'LayerwiseMorphingGenerator',
    'OpenCLIPGenerator',
    'PerturbedGenerator',
    'SLIPGenerator',
    'TargetGenerator',
    'TimmGenerator',
    'Tower',
]
