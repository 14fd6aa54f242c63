"""Importing this module makes mmdtm known to OpenMMLab.

A config names it once, ``custom_imports = dict(imports=['mmdtm.plugin'])``,
and every class of mmdtm is then in mmpretrain's registries, for mmsegmentation
configs under the prefix ``mmpretrain.``.
"""

from mmdtm import compat

compat.apply()

import mmdtm.datasets  # noqa: E402, F401
import mmdtm.engine  # noqa: E402, F401
import mmdtm.evaluation  # noqa: E402, F401
import mmdtm.models  # noqa: E402, F401
