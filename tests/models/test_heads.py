import pytest
import torch
from mmpretrain.registry import MODELS

from mmdtm.morphing import TokenAssignment, dtm_loss


def made_case():
    online, target = torch.randn(2, 2, 6, 3)
    return online, target, [TokenAssignment(torch.randint(3, (2, 6)), 3)]


@pytest.mark.parametrize(
    'options',
    [
        {},
        dict(reduction='sum'),
        dict(distance='l1'),
        dict(distance='l1', group_reduction='sum'),
        dict(distance='l2'),
        dict(distance='smooth_l1'),
        dict(distance='smooth_l1', beta=0.5),
    ],
)
def test_loss__is_the_functions(options):
    case = made_case()
    loss = MODELS.build(dict(type='DTMLoss', **options))(*case)
    assert torch.equal(loss, dtm_loss(*case, **options))
    for name, value in options.items():
        default = {k: v for k, v in options.items() if k != name}
        assert loss != dtm_loss(*case, **default), f'{name}={value} changes nothing'


def test_head__projects_to_the_teachers_width():
    head = MODELS.build(dict(type='DTMHead', in_channels=5, out_channels=3))
    head.init_weights()
    assert head.projection.weight.std() > 0 and not head.projection.bias.any()
    online, target, assignments = made_case()
    tokens = torch.randn(2, 6, 5)
    assert head(tokens).shape == online.shape
    expected = dtm_loss(head.projection(tokens), target, assignments)
    assert torch.equal(head.loss(tokens, target, assignments), expected)


def test_loss__that_is_not_finite_is_left_to_the_training_loop():
    online, target, assignments = made_case()
    online[0, 0] = torch.nan
    loss = MODELS.build(dict(type='DTMLoss'))(online, target, assignments)
    assert loss.isnan()
