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
        dict(distance='l2', reduction='sum'),
        dict(distance='smooth_l1', beta=2.0),
    ],
)
def test_loss__is_the_functions(options):
    case = made_case()
    loss = MODELS.build(dict(type='DTMLoss', **options))(*case)
    assert torch.equal(loss, dtm_loss(*case, **options))


def test_options__matter():
    case = made_case()
    losses = {
        MODELS.build(dict(type='DTMLoss', **options))(*case).item()
        for options in (
            {},
            dict(reduction='sum'),
            dict(distance='l1'),
            dict(distance='l2'),
            dict(distance='smooth_l1'),
            dict(distance='smooth_l1', beta=2.0),
        )
    }
    assert len(losses) == 6


def test_gradient__reaches_u_and_never_v():
    online, target, assignments = made_case()
    online.requires_grad_()
    target.requires_grad_()
    MODELS.build(dict(type='DTMLoss'))(online, target, assignments).backward()
    assert (online.grad != 0).any(2).all()
    assert target.grad is None


def test_loss__that_is_not_finite_is_left_to_the_training_loop():
    online, target, assignments = made_case()
    online[0, 0] = torch.nan
    loss = MODELS.build(dict(type='DTMLoss'))(online, target, assignments)
    assert loss.isnan()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(distance='l3'), "distance must be one of .* got 'l3'"),
        (dict(reduction='none'), "reduction must be one of .* got 'none'"),
        (dict(beta=-1.0), 'beta must be above 0, got -1.0'),
    ],
)
def test_init__refuses(options, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(dict(type='DTMLoss', **options))
