"""Importing this module makes mmdtm known to OpenMMLab.

A config names it once, ``custom_imports = dict(imports=['mmdtm.plugin'])``,
and every class of mmdtm is then in mmpretrain's registries, for mmsegmentation
configs under the prefix ``mmpretrain.``.
"""

import mmdtm.datasets
import mmdtm.engine
import mmdtm.evaluation
import mmdtm.models  # noqa: F401
from mmdtm.hub import connect_mmpretrain

connect_mmpretrain()
