"""Figure 2's pictures."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from mmdtm import visualization as vis
from mmdtm.evaluation.patch_zero_shot import PatchPredictions


@pytest.fixture(scope='module')
def tool(load_tool):
    return load_tool('patch_zero_shot')


@pytest.fixture
def class_file(tmp_path):
    file = tmp_path / 'classes.txt'
    file.write_text('n01440764\ttench\nhen\nred fox\nnight sky\n')
    return ['--classes', str(file)]


def made_predictions(predicted, target):
    predicted = torch.tensor(predicted)[None]
    right = predicted == target
    return PatchPredictions(
        predicted=predicted,
        right=right,
        distance=torch.where(right, 0.0, 0.75),
        image=torch.tensor([1]),
    )


def test_panel_tells_right_from_wrong_and_what_the_boxes_say(tool):
    image, boxes = np.full((192, 192, 3), 255, np.uint8), np.array([[1, 1], [1, 0]])
    found, names = made_predictions([2, 0, 2, 2], target=2), ['cock', 'hen', 'fox']
    drawn, text = tool.draw_panel(image, found, 2, names, boxes)
    first, *others = text.split('\n')
    assert first == '3 of 4 patches right; …'  # where the image ends
    assert others == ['1: 2 fox \u2713, 1 cock']
    right = np.array([[True, False], [True, True]])
    expected = vis.draw_correctness(image, right, np.where(right, 0, 0.75))
    assert np.array_equal(drawn, vis.draw_boxes(expected, boxes))
    wide = image.repeat(2, 1)
    drawn, text = tool.draw_panel(wide, found, 2, names, 0 * boxes)
    expected = vis.draw_correctness(wide, right, np.where(right, 0, 0.75))
    assert np.array_equal(drawn, expected)
    assert text == '3 of 4 patches right; together: hen \u2717'


@pytest.mark.parametrize(
    'grid, count, corners',
    [
        ((14, 14), 4, [(2, 2), (2, 9), (9, 2), (9, 9)]),
        ((8, 8), 1, [(2, 2)]),
        ((4, 4), 2, [(0, 0), (0, 2)]),
        ((8, 8), 0, []),
    ],
)
def test_boxes_are_spread(tool, grid, count, corners):
    boxes = tool.spread_boxes(grid, count)
    assert boxes.max() == count
    side = 2 if grid == (4, 4) else 3
    for number, (top, left) in enumerate(corners, start=1):
        found = np.argwhere(boxes == number)
        assert found.min(0).tolist() == [top, left]
        assert np.ptp(found[:, 1]) + 1 == side


def test_identity_morphing_gives_the_same_picture_twice(
    tool, clip_args, text_args, class_file, world, tmp_path, monkeypatch
):
    panels = []
    draw_panel = tool.draw_panel
    monkeypatch.setattr(
        tool, 'draw_panel', lambda *args: panels.append(draw_panel(*args)) or panels[-1]
    )
    arguments = [str(world / 'hen'), '--out', str(tmp_path / 'out'), '--side', '96']
    arguments += ['--num-morphed', '16', *clip_args, *text_args, *class_file]
    assert tool.main(arguments) == 0
    without, morphed, other, _ = panels
    assert np.array_equal(without[0], morphed[0]) and without[1] == morphed[1]
    assert not np.array_equal(without[0], other[0])


def test_tool_counts_right_patches_and_names_what_it_leaves_out(
    tool, clip_args, text_args, class_file, world, tmp_path, capsys
):
    (world / 'hen' / 'bad.png').write_bytes(b'no image')
    out = tmp_path / 'out'
    arguments = [str(world), '--out', str(out), '--num-morphed', '5', '--side', '64']
    assert tool.main([*arguments, *clip_args, *text_args, *class_file]) == 0
    errors = capsys.readouterr().err
    assert "2 image(s) left out: 'ostrich' is none of the 4 classes" in errors
    assert 'bad.png cannot be read' in errors
    results = json.loads((out / 'results.json').read_text())
    assert [result['label'] for result in results] == ['hen', 'hen', 'tench', 'tench']
    for result in results:
        assert np.asarray(Image.open(result['picture'])).std() > 20
        assert result['patches'] == 16
        assert 0 <= result['right_without'] <= 16
    assert any(r['right_with'] != r['right_without'] for r in results)


def test_label_holds_for_all_images(
    tool, clip_args, text_args, class_file, world, tmp_path, capsys
):
    arguments = ['--out', str(tmp_path / 'out'), '--side', '64']
    arguments += [*clip_args, *text_args, *class_file]
    assert tool.main([str(world), '--label', 'Red_Fox', *arguments]) == 0
    results = json.loads((tmp_path / 'out/results.json').read_text())
    assert {result['label'] for result in results} == {'red fox'}
    assert len(results) == 6
    with pytest.raises(SystemExit):
        tool.main([str(world), '--label', 'red fix', *arguments])
    assert "Did you mean 'red fox'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    'options, message',
    [
        (
            ['--num-morphed', '2', '--num-iters', '1'],
            'Choose another number of iterations',
        ),
        (['--templates', 'a photo'], 'has no {} for the class name'),
        (['--classes', 'absent.txt'], 'absent.txt: no such class list'),
    ],
)
def test_impossible_options_are_refused(
    tool, clip_args, text_args, class_file, world, tmp_path, options, message
):
    arguments = [str(world), '--out', str(tmp_path / 'out'), *clip_args]
    with pytest.raises(SystemExit, match=f'^error: .*{message}'):
        tool.main([*arguments, *text_args, *class_file, *options])


def test_folders_can_be_the_classes(tool, clip_args, text_args, world, tmp_path):
    arguments = [str(world), '--out', str(tmp_path / 'out'), '--classes', 'folders']
    arguments += ['--side', '64']
    assert tool.main([*arguments, *clip_args, *text_args]) == 0
    results = json.loads((tmp_path / 'out/results.json').read_text())
    assert {result['label'] for result in results} == {'hen', 'n01440764', 'ostrich'}


def test_classes_of_one_folder_are_those_beside_it(
    tool, clip_args, text_args, world, tmp_path
):
    arguments = ['--out', str(tmp_path / 'out'), '--classes', 'folders', '--side', '64']
    arguments += [*clip_args, *text_args]
    found = []
    for place in (world, world / 'hen'):
        assert tool.main([str(place), *arguments]) == 0
        content = json.loads((tmp_path / 'out/results.json').read_text())
        found.append([e for e in content if 'hen' in json.dumps(e)])
    assert found[0] == found[1] != []

    alone = tmp_path / 'alone'
    shutil.copytree(world / 'hen', alone / 'hen')
    with pytest.raises(SystemExit, match="one class alone, 'hen'"):
        tool.main([str(alone), *arguments])
