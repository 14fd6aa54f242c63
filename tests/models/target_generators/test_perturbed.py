"""A teacher that is perturbed by a known amount."""

import mmdtm.plugin  # noqa: F401  # isort: skip

import pytest
import torch
from mmpretrain.registry import MODELS

IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def teacher(clip_config, clip_file) -> dict:
    return dict(
        type='OpenCLIPGenerator',
        model='tiny',
        model_config=clip_config,
        pretrained=clip_file,
    )


def perturbed(teacher, **kwargs):
    return MODELS.build(dict(type='PerturbedGenerator', teacher=teacher, **kwargs))


@pytest.mark.parametrize('kind', ['independent', 'correlated', 'swapped'])
def test_no_strength__gives_the_teachers_own_tokens(teacher, kind):
    own = MODELS.build(teacher)(IMAGES)
    assert torch.equal(perturbed(teacher, kind=kind, strength=0.0)(IMAGES), own)


@pytest.mark.parametrize('kind', ['independent', 'correlated', 'swapped'])
def test_an_image_alone_decides_its_perturbation(teacher, kind):
    generator = perturbed(teacher, kind=kind, strength=0.5)
    tokens = generator(IMAGES)
    torch.manual_seed(9)  # and no state of torch
    for one, expected in zip(IMAGES, tokens, strict=True):
        torch.testing.assert_close(generator(one[None])[0], expected)
    other = perturbed(teacher, kind=kind, strength=0.5, seed=1)(IMAGES)
    assert not torch.equal(other, tokens)
    # Two images do not share their noise.
    added = tokens - MODELS.build(teacher)(IMAGES)
    assert not torch.allclose(added[0], added[1], atol=1e-3)


@pytest.mark.parametrize('kind', ['independent', 'correlated'])
def test_strength_is_the_noises_length_over_the_tokens(teacher, kind):
    images = torch.randn(200, 3, 32, 32)
    own = MODELS.build(teacher)(images)
    noise = perturbed(teacher, kind=kind, strength=2.0)(images) - own
    share = noise.square().mean(-1) / own.square().mean(-1)
    assert share.mean().item() == pytest.approx(4, rel=0.05)
    # Each position has as much.
    torch.testing.assert_close(share.mean(0), torch.full((16,), 4.0), rtol=0.25, atol=0)


@pytest.mark.parametrize(
    ('kind', 'expected'), [('independent', 0.0), ('correlated', 20 / 25)]
)
def test_neighbours_share_correlated_noise_alone(teacher, kind, expected):
    images = torch.randn(200, 3, 32, 32)
    own = MODELS.build(teacher)(images)
    noise = perturbed(teacher, kind=kind, strength=1.0)(images) - own
    noise = (noise / own.norm(dim=-1, keepdim=True)).unflatten(1, (4, 4))
    # Windows of 5 x 5 that are one position apart have 20 of 25 in common.
    for left, right in (
        (noise[:, 1:], noise[:, :-1]),
        (noise[:, :, 1:], noise[:, :, :-1]),
    ):
        correlation = (left * right).sum() / (left.norm() * right.norm())
        assert correlation.item() == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize(('share', 'moved'), [(0.25, 4), (0.5, 8), (1.0, 16)])
def test_a_share_of_the_positions_swaps_tokens(teacher, share, moved):
    own = MODELS.build(teacher)(IMAGES)
    tokens = perturbed(teacher, kind='swapped', strength=share)(IMAGES)
    same = (tokens == own).all(-1)
    assert (~same).sum(1).tolist() == [moved] * 3
    for image, expected in zip(tokens, own, strict=True):  # none is lost or doubled
        assert sorted(image.tolist()) == sorted(expected.tolist())


def test_follows_the_students_grid(teacher):
    generator = perturbed(teacher, kind='correlated', strength=1.0)
    generator.set_student_grid((6, 6), 48)
    images = torch.randn(2, 3, 48, 48)
    own = MODELS.build(teacher)
    own.set_student_grid((6, 6), 48)
    tokens = generator(images)
    assert tokens.shape == own(images).shape == (2, 36, 16)
    assert not torch.equal(tokens, own(images))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(kind='salt'), "kind is 'salt'. Give one of .'independent', 'correlated'"),
        (dict(strength=-1.0), 'strength is -1.0. Choose 0 or more'),
        (dict(strength=float('nan')), 'strength is nan. Choose 0 or more'),
        (dict(kind='swapped', strength=1.5), 'strength is 1.5.*at most 1'),
    ],
)
def test_wrong_option_is_refused(teacher, options, message):
    with pytest.raises(ValueError, match=message):
        perturbed(teacher, **options)


def test_a_teacher_that_groups_by_itself_is_refused(teacher):
    teacher.update(type='LayerwiseMorphingGenerator', num_merged=2)
    with pytest.raises(
        ValueError, match='LayerwiseMorphingGenerator groups its tokens'
    ):
        perturbed(teacher)
