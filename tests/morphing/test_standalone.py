import subprocess
import sys

import pytest

SCRIPT = """
import sys


class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('mmengine', 'mmcv', 'mmpretrain', 'mmseg'):
            raise ModuleNotFoundError(f'{name} is blocked')


sys.meta_path.insert(0, Blocked())
import torch
from mmdtm.morphing import (
    DynamicSchedule, bipartite_matching, dpc_knn, downsample, dtm_loss, kmeans)

u, v = torch.randn(2, 2, 16, 8)
groups = [
    bipartite_matching(v, DynamicSchedule(16).draw(0, 0)), kmeans(v, 4, 2),
    dpc_knn(v, 4), downsample(4, 2, 2)]
print(dtm_loss(u, v, groups).item())
print(sorted(m for m in sys.modules if m.startswith('mmdtm') and '.' in m))
"""


@pytest.mark.slow
def test_core__works_without_openmmlab():
    result = subprocess.run(
        [sys.executable, '-c', SCRIPT], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    loss, modules = result.stdout.splitlines()
    assert 0 < float(loss) < 2
    assert "'mmdtm.morphing.bipartite'" in modules
    assert 'mmdtm.models' not in modules
