import pytest
import torch
import torch.nn.functional as F

from mmdtm.morphing import downsample


@pytest.mark.parametrize(
    ('grid', 'stride'), [((4, 6), (2, 3)), ((4, 6), (2, 2)), ((6, 6), (1, 1))]
)
def test_means__are_those_of_average_pooling(grid, stride):
    height, width = grid
    x = torch.randn(3, 5, height, width, dtype=torch.float64)
    tokens = x.flatten(2).transpose(1, 2)
    pooled = downsample(grid, stride, 3).morph(tokens)
    expected = F.avg_pool2d(x, stride).flatten(2).transpose(1, 2)
    torch.testing.assert_close(pooled, expected)


def test_ints__stand_for_squares():
    ours = downsample(14, 2, 4)
    assert ours.num_morphed == 49
    assert ours.labels.shape == (4, 196) and ours.labels.dtype == torch.int64
    assert torch.equal(ours.labels, downsample((14, 14), (2, 2), 4).labels)


def test_device__is_where_the_labels_are():
    assert downsample(4, 2, 1, 'meta').labels.device.type == 'meta'


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (((14, 14), 3, 1), r'stride \(3, 3\) does not divide .* \(14, 14\)'),
        (((14, 12), (2, 5), 1), r'stride \(2, 5\) does not divide'),
        ((4, 8, 1), 'does not divide'),
        ((4, 0, 1), 'stride is .* Give an int at least 1'),
        ((4, (2, 0), 1), 'stride is .* Give an int at least 1'),
        ((4.0, 2, 1), 'grid_size is .* Give an int or two ints'),
        (((4, 4, 4), 2, 1), 'grid_size is .* Give an int or two ints'),
        ((4, 2, 0), 'batch_size is .* Give an int at least 1'),
    ],
)
def test_arguments__that_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        downsample(*arguments)
