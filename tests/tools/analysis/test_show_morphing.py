"""The table of groupings."""

import numpy as np
import pytest
import torch
from PIL import Image

from mmdtm import visualization as vis
from mmdtm.morphing import bipartite_matching, merge_schedule


@pytest.fixture(scope='module')
def tool(load_tool):
    return load_tool('show_morphing')


def test_each_cell_shows_its_grouping(tool):
    image = vis.fit_to_grid(
        np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8), (4, 4), 64
    )
    tokens = torch.randn(1, 16, 8)
    page = tool.draw_image(image, tokens, (4, 4), [12, 5], [1, 3], 'palette')
    axes = iter(page.axes)
    for k in (1, 3):
        first = next(axes)
        assert first.get_ylabel() == f'k = {k}'
        assert len(first.get_images()) == (k == 1)
        for remain in (12, 5):
            labels = bipartite_matching(tokens, merge_schedule(16, remain, k)).labels
            expected = vis.draw_groups(image, labels.reshape(4, 4).numpy())
            axis = next(axes)
            (drawn,) = axis.get_images()
            assert np.array_equal(drawn.get_array(), expected)
            unreached = (k, remain) == (1, 5)
            assert axis.get_xlabel() == 'stops at 8 tokens' * unreached


def test_tool_draws_photographs_and_names_what_it_cannot_read(
    tool, clip_args, world, tmp_path, capsys
):
    bad = world / 'hen' / 'bad.png'
    bad.write_bytes(b'no image')
    out = tmp_path / 'out'
    options = ['--num-iters', '2', '--side', '64', '--out', str(out)]
    assert tool.main([str(world / 'hen'), *options, *clip_args]) == 0
    assert f'left out: {bad} cannot be read' in capsys.readouterr().err
    assert sorted(file.name for file in out.iterdir()) == ['hen_0.png', 'hen_1.png']
    # The photograph and 12, 8, 4 and 1 of the 16 tokens.
    assert Image.open(out / 'hen_0.png').width > 5 * 64 + 4 * 12


@pytest.mark.parametrize(
    'options, message',
    [
        (['--num-morphed', '17'], 'num_morphed is'),
        (['--num-iters', '0'], 'num_iters is'),
    ],
)
def test_impossible_numbers_are_refused(
    tool, clip_args, world, tmp_path, options, message
):
    out = ['--out', str(tmp_path / 'out')]
    with pytest.raises(SystemExit, match=message):
        tool.main([str(world / 'hen'), *options, *out, *clip_args])


def test_missing_weights_are_named(tool, world, tmp_path):
    options = ['--model', 'ViT-B-32', '--pretrained', 'absent.pt', '--device', 'cpu']
    with pytest.raises(SystemExit, match='absent.pt'):
        tool.main([str(world), '--out', str(tmp_path), *options])


def test_a_missing_path_leaves_the_others(tool, clip_args, world, tmp_path, capsys):
    out = tmp_path / 'out'
    paths = [tmp_path / 'nowhere', world / 'hen/0.png', world / 'hen/0.png']
    options = ['--num-iters', '2', '--side', '64', '--out', str(out)]
    assert tool.main([*map(str, paths), *options, *clip_args]) == 0
    assert 'nowhere does not exist' in capsys.readouterr().err
    assert sorted(p.name for p in out.iterdir()) == ['hen_0.png', 'hen_0_2.png']
