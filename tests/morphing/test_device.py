"""Everything stays on the device of the tokens, told by one that has no data."""

from contextlib import nullcontext

import pytest
import torch

from mmdtm.morphing import bipartite_matching, dpc_knn, dtm_loss, kmeans

TOKENS = torch.zeros(2, 9, 4, device='meta')
CENTRES = torch.zeros(2, 3, 4, device='meta')


@pytest.fixture(autouse=True)
def _no_autocast(monkeypatch):
    """There is none for a device without data."""
    monkeypatch.setattr(torch, 'autocast', lambda *_, **__: nullcontext())


@pytest.mark.parametrize(
    'group',
    [
        lambda x: bipartite_matching(x, (3, 2), check_finite=False),
        lambda x: bipartite_matching(x, (2, 2), class_token=True, check_finite=False),
        lambda x: bipartite_matching(x, (0,), check_finite=False),
        lambda x: kmeans(x, 3, 2, init=CENTRES, check_finite=False),
        lambda x: dpc_knn(x, 3, check_finite=False),
        lambda x: dpc_knn(x, 9, check_finite=False),
    ],
)
def test_groups_and_loss__stay_on_the_device(group):
    assignment = group(TOKENS)
    assert assignment.labels.is_meta and assignment.matrix().is_meta
    assert assignment.unmorph(assignment.morph(TOKENS)).is_meta
    assert dtm_loss(TOKENS, TOKENS, [assignment], check_finite=False).is_meta


def test_drawn_centres_and_halves__are_moved_to_the_device():
    for generator in (None, torch.Generator()):
        halves = bipartite_matching(
            TOKENS, (3, 2), 'random', generator, check_finite=False
        )
        clusters = kmeans(TOKENS, 3, 2, generator, check_finite=False)
        assert halves.labels.is_meta and clusters.labels.is_meta
