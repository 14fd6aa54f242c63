"""Colour jitter on the device: torchvision's, image by image."""

import itertools
from unittest import mock

import pytest
import torch
from torchvision.transforms.v2 import functional as F

from mmdtm.models.batch_color_jitter import BatchColorJitter, jitter

STEPS = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation)
OPTIONS = dict(brightness=0.4, contrast=0.4, saturation=0.4)


def test_each_image_is_as_torchvision_adjusts_it():
    """In all six orders, and with factors that make pixels black and white."""
    order = torch.tensor(list(itertools.permutations(range(3)))).T
    images = 255 * torch.rand(6, 3, 9, 7, dtype=torch.float64)
    factors = 3 * torch.rand(3, 6, dtype=torch.float64)
    expected = []
    for image, turns, own in zip(images / 255, order.T, factors.T, strict=True):
        for turn in turns.tolist():
            image = STEPS[turn](image, own[turn].item())
        expected.append(255 * image)
    expected = torch.stack(expected)
    assert (expected == 0).any() and (expected == 255).any()
    torch.testing.assert_close(jitter(images, order, factors), expected)


def test_draws_are_each_images_own_within_the_ranges_and_repeat():
    image = torch.rand(1, 3, 4, 4) * 40 + 100
    images = image.repeat(200, 1, 1, 1)
    torch.manual_seed(0)
    found = BatchColorJitter(brightness=(0.5, 1.5))(images)
    factors = (found / images).flatten(1)
    assert factors.std(dim=1).max() < 1e-5  # one for all pixels
    low, high = factors.min(), factors.max()
    assert 0.5 <= low < 0.52 and 1.48 < high <= 1.5
    torch.manual_seed(0)
    assert torch.equal(BatchColorJitter(brightness=0.5)(images), found)
    with mock.patch('mmdtm.models.batch_color_jitter.jitter') as jittered:
        BatchColorJitter(**OPTIONS)(images)
    _, order, factors = jittered.call_args.args
    assert len(order.unique(dim=1).T) == 6 and len(factors.unique(dim=1).T) == 200
    assert torch.equal(BatchColorJitter()(images), images)


def test_the_views_are_of_the_same_jittered_crop_in_training_alone(
    dtm_cfg, build, batch
):
    plain = build(dtm_cfg).data_preprocessor
    dtm_cfg['data_preprocessor']['color_jitter'] = OPTIONS
    jittering = build(dtm_cfg).data_preprocessor
    views = plain(batch(), training=True)['inputs']
    torch.manual_seed(3)
    jittered = jittering(batch(), training=True)['inputs']
    pixels = []
    for number, view in enumerate(jittered):
        mean, std = jittering.view_norm(number)
        pixels.append(view * std + mean)
        assert not torch.allclose(view, views[number])
    torch.testing.assert_close(*pixels, rtol=1e-4, atol=1e-3)
    torch.manual_seed(3)
    expected = BatchColorJitter(**OPTIONS)(batch()['inputs'].flip(1).float())
    torch.testing.assert_close(pixels[0], expected, rtol=1e-4, atol=1e-3)
    testing = jittering(batch())['inputs']
    assert all(torch.equal(a, b) for a, b in zip(testing, views, strict=True))


def test_wrong_options():
    with pytest.raises(ValueError, match='no hue. Leave hue out'):
        BatchColorJitter(hue=0.1)
    with pytest.raises(ValueError, match='non negative'):
        BatchColorJitter(contrast=-1)
