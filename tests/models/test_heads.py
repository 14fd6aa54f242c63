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


def test_each_position_gives_the_tokens_of_its_cells():
    """By loops: token (i, j) is of position (i // 2, j // 2), cell (i % 2, j % 2)."""
    head = MODELS.build(
        dict(
            type='DTMHead',
            in_channels=5,
            out_channels=3,
            grid_size=(4, 6),
            student_grid=(2, 3),
        )
    )
    tokens = torch.randn(2, 6, 5)
    online = head(tokens)
    assert online.shape == (2, 24, 3)
    given = (tokens @ head.projection.weight.T + head.projection.bias).view(
        2, 2, 3, 2, 2, 3
    )
    for i in range(4):
        for j in range(6):
            expected = given[:, i // 2, j // 2, i % 2, j % 2]
            torch.testing.assert_close(online[:, i * 6 + j], expected)
