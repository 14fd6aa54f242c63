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
    with pytest.raises(ValueError, match="'palette' or 'mean', got 'rainbow'"):
        vis.draw_groups(noise(4, 4, 3), np.zeros((2, 2), int), 'rainbow')


def test_mask_covers_masked_patches_alone():
    image = noise(4, 4, 3)
    mask = np.array([[True, False], [False, True]])
    drawn = vis.draw_mask(image, mask)
    covered = mask.repeat(2, 0).repeat(2, 1)
    assert (drawn[covered] == 128).all()
    assert np.array_equal(drawn[~covered], image[~covered])


def test_wrong_patches_darken_with_the_distance():
    steps = np.linspace(0, 1, 9)
    wrong = vis.correctness_colors(np.zeros(9, bool), steps, steps)
    assert (np.diff(luminance(wrong)) < 0).all()
    assert (wrong[:, 0] > wrong[:, 1] + 60).all()  # red
    right = vis.correctness_colors(np.ones(9, bool), steps, steps)
    assert (right[:, 1] > right[:, 0] + 30).all()  # green
    assert (right[:, 1] > right[:, 2] + 30).all()
    # Without colour, right stays lighter than wrong.
    assert luminance(right).min() > luminance(wrong).max()
    assert np.array_equal(
        vis.correctness_colors(np.ones(1, bool), steps[:1], steps[3:4]),
        vis.correctness_colors(np.ones(1, bool), steps[8:], steps[3:4]),
    )


def test_right_patches_bear_a_dot():
    image = np.zeros((32, 64, 3), np.uint8)
    drawn = vis.draw_correctness(
        image, np.array([[True, False]]), np.array([[0, 1.0]]), np.array([[1.0, 1.0]])
    )
    assert drawn[16, 16].tolist() == [255, 255, 255]
    assert drawn[16, 48].tolist() == drawn[2, 40].tolist()


def test_long_names_are_cut_to_the_width():
    short = vis.badge_key(['a hen'], 200, [True])
    long = vis.badge_key(['a hen ' * 60], 200, [True])
    assert short.shape == long.shape == (22, 200, 3)
    assert (long[:, -1] == 255).all()
    assert (long[:, 180:] != 255).any()  # the text fills the line


def test_stack_pads_with_white():
    top, wide = np.zeros((2, 3, 3), np.uint8), np.zeros((1, 5, 3), np.uint8)
    page = vis.stack([top, wide], axis=0, gap=4)
    assert page.shape == (7, 5, 3)
    assert not page[:2, :3].any() and not page[6].any()
    assert (page[:2, 3:] == 255).all() and (page[2:6] == 255).all()


def test_sheet_refuses_a_row_without_its_titles():
    cell = noise(4, 4, 3)
    with pytest.raises(ValueError, match='Row 2 has 1 pictures for 2'):
        vis.sheet([[cell, cell], [cell]], ['a', 'b'])


def test_morphing_sheet_shows_every_image_mask_and_level():
    images = noise(2, 32, 32, 3)
    masks = np.zeros((2, 4, 4), bool)
    masks[:, :2, :2] = True
    levels = [
        TokenAssignment(torch.arange(16).repeat(2, 1) // 4, 4),
        TokenAssignment.identity(2, 16),
    ]
    page = vis.morphing_sheet(images, masks, levels, (4, 4), side=64)
    margin, title = 12, 22 + 2
    assert page.shape == (2 * margin + title + 2 * 64 + 12, 2 * margin + 4 * 64 + 36, 3)
    for row in range(2):
        top = margin + title + row * 76
        cells = [
            page[top : top + 64, left : left + 64] for left in range(12, 12 + 304, 76)
        ]
        image = vis.fit_to_grid(images[row], (4, 4), 64)
        assert np.array_equal(cells[0], image)
        assert np.array_equal(cells[1], vis.draw_mask(image, masks[row]))
        for cell, level in zip(cells[2:], levels, strict=True):
            labels = level.labels[row].reshape(4, 4).numpy()
            assert np.array_equal(cell, vis.draw_groups(image, labels))
    without = vis.morphing_sheet(images, None, levels, (4, 4), side=64)
    assert without.shape[1] == page.shape[1] - 76


def test_outline_closes_inner_corners():
    labels = np.array([[0, 0], [0, 1]])
    drawn = vis.outline(np.zeros((8, 8, 3), np.uint8), labels, (9, 9, 9), only=[0])
    assert drawn[3, 3].all()  # where the two borders of group 0 meet
    assert not drawn[2, 2].any()
