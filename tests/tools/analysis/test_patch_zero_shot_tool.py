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


def made_predictions(right):
    right = torch.tensor(right)[None]
    return PatchPredictions(
        predicted=torch.where(right, 0, 1),
        confidence=torch.full(right.shape, 0.5),
        right=right,
        distance=torch.where(right, 0.0, 0.75),
        image=torch.tensor([1]),
    )


def test_panel_paints_right_green_and_wrong_red(tool):
    image = np.full((32, 64, 3), 255, np.uint8)
    drawn, key = tool.draw_panel(
        image, made_predictions([True, False]), np.array([[0, 1]]), [], ['a', 'b']
    )
    expected = vis.draw_correctness(
        image, np.array([[True, False]]), np.array([[0, 0.75]]), np.full((1, 2), 0.5)
    )
    assert key is None
    assert np.array_equal(drawn, expected)
    green, red = drawn[2, 2].astype(int), drawn[2, 34].astype(int)
    assert green[1] > max(green[0], green[2]) and red[0] > max(red[1], red[2])


def test_named_patches_are_spread_and_of_large_groups(tool):
    apart = np.arange(64).reshape(8, 8)
    cells = tool.cells_to_name(apart, 4)
    quarters = {(row // 4, column // 4) for row, column in cells}
    assert len(quarters) == 4
    merged = apart.copy()
    merged[0, :3] = 0
    merged[7, 5:] = 63
    found = tool.cells_to_name(merged, 4)
    assert found[0][0] == 0 and found[0][1] in (0, 1, 2)
    assert found[3][0] == 7 and found[3][1] in (5, 6, 7)
    # Nothing is named twice, even where one group fills the image.
    assert len(tool.cells_to_name(np.zeros((8, 8), int), 4)) == 1
    assert tool.cells_to_name(apart, 0) == []


@pytest.mark.parametrize('boxes', ['0', '3'])
def test_identity_morphing_gives_the_same_picture_twice(
    tool, clip_args, text_args, class_file, world, tmp_path, boxes, monkeypatch
):
    panels = []
    draw_panel = tool.draw_panel

    def keep(*args):
        panels.append(draw_panel(*args))
        return panels[-1]

    monkeypatch.setattr(tool, 'draw_panel', keep)
    arguments = [str(world / 'hen'), '--out', str(tmp_path / 'out'), '--boxes', boxes]
    arguments += [
        '--num-morphed',
        '16',
        '--side',
        '96',
        *clip_args,
        *text_args,
        *class_file,
    ]
    assert tool.main(arguments) == 0
    assert len(panels) == 4
    for (without, key_without), (morphed, key_morphed) in zip(
        panels[::2], panels[1::2], strict=True
    ):
        assert np.array_equal(without, morphed)
        assert (key_without is None) == (boxes == '0')
        if key_without is not None:
            assert np.array_equal(key_without, key_morphed)
    assert not np.array_equal(panels[0][0], panels[2][0])


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
    assert tool.main([str(world), '--label', 'red fix', *arguments]) == 1
    assert "Did you mean 'red fox'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    'options, message',
    [
        (
            ['--num-morphed', '2', '--num-iters', '1'],
            'choose another number of iterations',
        ),
        (['--templates', 'a photo'], 'has no {} for the class name'),
        (['--classes', 'absent.txt'], 'absent.txt: no such class list'),
    ],
)
def test_impossible_options_are_refused(
    tool, clip_args, text_args, class_file, world, tmp_path, capsys, options, message
):
    arguments = [str(world), '--out', str(tmp_path / 'out'), *clip_args]
    assert tool.main([*arguments, *text_args, *class_file, *options]) == 1
    assert message in capsys.readouterr().err


def test_folders_can_be_the_classes(tool, clip_args, text_args, world, tmp_path):
    arguments = [str(world), '--out', str(tmp_path / 'out'), '--classes', 'folders']
    arguments += ['--side', '64']
    assert tool.main([*arguments, *clip_args, *text_args]) == 0
    results = json.loads((tmp_path / 'out/results.json').read_text())
    assert {result['label'] for result in results} == {'hen', 'n01440764', 'ostrich'}


def test_classes_of_one_folder_are_those_beside_it(
    tool, clip_args, text_args, world, tmp_path, capsys
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
    assert tool.main([str(alone), *arguments]) == 1
    assert "one class alone, 'hen'" in capsys.readouterr().err
