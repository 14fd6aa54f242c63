"""Pictures, read back pixel by pixel."""

import numpy as np
import pytest
import torch

from mmdtm import visualization as vis
from mmdtm.morphing import TokenAssignment


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def luminance(color):
    return np.asarray(color) @ [0.299, 0.587, 0.114]


def test_denormalize_undoes_normalisation():
    image = torch.from_numpy(noise(2, 5, 7, 3))
    mean, std = [123.7, 116.3, 103.5], [58.4, 57.1, 57.4]
    normalised = (image - torch.tensor(mean)) / torch.tensor(std)
    drawn = vis.denormalize(normalised.permute(0, 3, 1, 2), mean, std)
    assert drawn.dtype == np.uint8
    assert np.array_equal(drawn, image.numpy())


@pytest.mark.parametrize('grid, shape', [((14, 14), (336, 336)), ((3, 6), (168, 336))])
def test_fit_to_grid_makes_whole_square_cells(grid, shape):
    assert vis.fit_to_grid(noise(50, 70, 3), grid).shape == (*shape, 3)


def test_paint_cells_blends_each_cell():
    image = noise(4, 6, 3)
    colors = noise(2, 3, 3)
    opacity = np.array([[0, 0.25, 1], [0.5, 0.75, 0]])
    drawn = vis.paint_cells(image, colors, opacity)
    for y in range(4):
        for x in range(6):
            a = opacity[y // 2, x // 2]
            expected = (1 - a) * image[y, x] + a * colors[y // 2, x // 2]
            assert np.abs(drawn[y, x] - expected).max() <= 0.5


def test_a_grid_that_does_not_divide_the_image_is_refused():
    with pytest.raises(ValueError, match='2x3 cells.*4x7 pixels.*fit_to_grid'):
        vis.paint_cells(noise(4, 7, 3), noise(2, 3, 3))


def test_outline_marks_the_border_between_groups():
    image = np.zeros((4, 8, 3), np.uint8)
    labels = np.array([[0, 0, 1, 1], [0, 0, 1, 1]])
    drawn = vis.outline(image, labels, (255, 255, 255))
    marked = drawn.any(axis=-1)
    expected = np.zeros((4, 8), bool)
    expected[:, [3, 4]] = True
    assert np.array_equal(marked, expected)
    assert not image.any()


def test_outline_of_one_group_follows_it_to_the_rim():
    labels = np.array([[0, 0, 1, 1], [0, 0, 1, 1]])
    drawn = vis.outline(np.zeros((4, 8, 3), np.uint8), labels, (9, 9, 9), only=[1])
    expected = np.zeros((4, 8), bool)
    expected[:, 4:] = True
    expected[1:3, 5:7] = False
    assert np.array_equal(drawn.any(axis=-1), expected)


def test_groups_have_distinct_colours():
    labels = np.random.default_rng(0).integers(0, 40, (14, 14))
    colors = vis.group_colors(labels)
    seen = {tuple(np.round(c)) for c in colors.reshape(-1, 3)}
    assert len(seen) == len(np.unique(labels))
    for label in np.unique(labels):
        assert len(np.unique(colors[labels == label], axis=0)) == 1


def test_palette_leaves_single_patches_as_they_are():
    image = noise(6, 6, 3)
    labels = np.array([[0, 0, 1], [2, 3, 0], [4, 5, 6]])
    drawn = vis.draw_groups(image, labels)
    expected = vis.outline(image, labels, (24, 24, 24))
    single = (labels != 0).repeat(2, 0).repeat(2, 1)
    assert np.array_equal(drawn[single], expected[single])
    inner = vis.draw_groups(noise(30, 30, 3), labels)[3:7, 3:7]
    assert np.abs(inner.astype(int) - noise(30, 30, 3)[3:7, 3:7]).max() > 10


def test_mean_fill_is_the_mean_colour_of_the_group():
    image = noise(16, 16, 3)
    labels = np.array([[0, 1], [0, 0]])
    drawn = vis.draw_groups(image, labels, fill='mean')
    pixels = labels.repeat(8, 0).repeat(8, 1)
    for label, inside in ((0, (12, 12)), (1, (3, 12))):
        expected = image[pixels == label].mean(axis=0)
        assert np.abs(drawn[inside] - expected).max() <= 0.5


def test_unknown_fill_is_refused():
    with pytest.raises(ValueError, match="'rainbow'. Give one of"):
        vis.draw_groups(noise(4, 4, 3), np.zeros((2, 2), int), 'rainbow')


def test_mask_covers_masked_patches_alone():
    image = noise(4, 4, 3)
    mask = np.array([[True, False], [False, True]])
    drawn = vis.draw_mask(image, mask)
    covered = mask.repeat(2, 0).repeat(2, 1)
    assert (drawn[covered] == 128).all()
    assert np.array_equal(drawn[~covered], image[~covered])


def test_right_is_green_with_a_dot_and_wrong_darkens_with_the_distance():
    image = np.full((20, 200, 3), (0, 90, 255), np.uint8)  # blue, drawn on in grey
    right = np.arange(10)[None] == 0
    drawn = vis.draw_correctness(image, right, np.linspace(0, 1, 10)[None], 0.5)
    cells = drawn[2, 2::20].astype(int)
    grey = luminance([0, 90, 255])
    for step, cell in enumerate(cells):
        share = step / 9
        red = (1 - share) * np.array(vis.WRONG[0]) + share * np.array(vis.WRONG[1])
        color = vis.RIGHT if step == 0 else red
        assert np.abs(cell - (0.5 * grey + 0.5 * np.array(color))).max() <= 1
    assert cells[0].argmax() == 1 and (cells[1:].argmax(1) == 0).all()
    assert (np.diff(luminance(cells[1:])) < -3).all()
    assert drawn[10, 10].tolist() == [255, 255, 255]
    assert (drawn[10, 30::20] == drawn[2, 30::20]).all()  # no dot on wrong ones


def test_boxes_are_framed_and_numbered():
    boxes = np.zeros((4, 8), int)
    boxes[1:3, 4:7] = 1
    drawn = vis.draw_boxes(np.full((80, 160, 3), 99, np.uint8), boxes)
    changed = (drawn != 99).any(-1)
    expected = np.zeros((80, 160), bool)
    expected[20:60, 80:140] = True
    expected[24:56, 84:136] = False
    badge = np.zeros_like(expected)
    badge[20:39, 80:99] = True
    assert np.array_equal(changed & ~badge, expected & ~badge)
    white, dark = drawn[45, 80:82], drawn[45, 82:84]  # of the frame, from outside
    assert (white == 255).all() and (luminance(dark) < 50).all()


def shown(figure):
    """The images of a figure, in their order."""
    return [np.asarray(i.get_array()) for a in figure.axes for i in a.get_images()]


def test_morphing_sheet_shows_every_image_mask_and_level():
    images = noise(2, 32, 32, 3)
    masks = np.zeros((2, 4, 4), bool)
    masks[:, :2, :2] = True
    levels = [
        TokenAssignment(torch.arange(16).repeat(2, 1) // 4, 4),
        TokenAssignment.identity(2, 16),
    ]
    page = vis.morphing_sheet(images, masks, levels, (4, 4), side=64)
    found = shown(page)
    assert len(found) == 2 * 4
    for row in range(2):
        cells = found[4 * row :][:4]
        image = vis.fit_to_grid(images[row], (4, 4), 64)
        assert np.array_equal(cells[0], image)
        assert np.array_equal(cells[1], vis.draw_mask(image, masks[row]))
        for cell, level in zip(cells[2:], levels, strict=True):
            labels = level.labels[row].reshape(4, 4).numpy()
            assert np.array_equal(cell, vis.draw_groups(image, labels))
    titles = [axis.get_title() for axis in page.axes[:4]]
    assert titles == [
        'image', '25% masked', 'level 1: 4 tokens', 'level 2: 16 tokens'
    ]  # fmt: skip
    without = vis.morphing_sheet(images, None, levels, (4, 4), side=64)
    assert len(without.axes) == 2 * 3
    pixels = vis.render(without)
    # Not resampled: the first image is there, pixel by pixel, right of a margin.
    left, image = pixels[:, 10:74], vis.fit_to_grid(images[0], (4, 4), 64)
    assert any(np.array_equal(left[y : y + 64], image) for y in range(len(left)))


def test_outline_closes_inner_corners():
    labels = np.array([[0, 0], [0, 1]])
    drawn = vis.outline(np.zeros((8, 8, 3), np.uint8), labels, (9, 9, 9), only=[0])
    assert drawn[3, 3].all()  # where the two borders of group 0 meet
    assert not drawn[2, 2].any()
