"""Curves of good, damaged and missing logs."""

import json

import numpy as np
import pytest
from PIL import Image

from mmdtm.training_log import reference_logs


def write_run(folder, epochs, accuracy, pretrained=None):
    place = folder / '20260101_000000/vis_data'
    place.mkdir(parents=True)
    rows = []
    for epoch in range(1, epochs + 1):
        rows.append(
            dict(loss=5.0 / epoch, epoch=epoch, iter=10 * epoch, step=10 * epoch)
        )
        rows.append({'accuracy/top1': accuracy + epoch, 'step': epoch})
    (place / 'scalars.json').write_text('\n'.join(map(json.dumps, rows)) + '\n')
    if pretrained:
        parent = dict(id='a', config='pre', changes={}, epoch=pretrained)
        record = dict(parent, id='b', kind='', full_config={}, parent=parent)
        (folder / 'run.json').write_text(
            json.dumps(record | dict(starts=[dict(code={})]))
        )
    return folder


@pytest.fixture(scope='module')
def tool(load_tool):
    return load_tool('plot_training')


@pytest.fixture
def runs(tmp_path):
    for name, length, accuracy in [
        ('dtm_100', 100, 70),
        ('dtm_300', 300, 75),
        ('base_100', 100, 68),
        ('base_300', 300, 72),
    ]:
        write_run(tmp_path / name, 5, accuracy, length)
    return tmp_path


def lines(axis):
    return {
        line.get_label(): (list(line.get_xdata()), list(line.get_ydata()))
        for line in axis.get_lines()
    }


def test_panels_hold_the_logged_numbers(tool, runs):
    named = [f'DTM={runs}/dtm_100', f'DTM={runs}/dtm_300', f'base={runs}/base_100']
    found = tool.read_runs(named + [f'base={runs}/base_300'], None)
    figure = tool.draw(found, 'loss', tool.accuracy_key([log for _, log, _ in found]))
    loss, accuracy, length = figure.axes
    label = 'DTM, 300 ep. pre-training'
    assert lines(loss)[label][0] == [1, 2, 3, 4, 5]
    assert lines(loss)[label][1] == pytest.approx([5.0 / e for e in range(1, 6)])
    assert lines(accuracy)[label] == ([1, 2, 3, 4, 5], [76, 77, 78, 79, 80])
    assert lines(length) == {
        'DTM': ([100, 300], [75, 80]),
        'base': ([100, 300], [73, 77]),
    }


def test_a_name_has_one_colour_and_each_of_its_runs_a_line_style(tool, runs):
    names = [f'DTM={runs}/dtm_100', f'base={runs}/base_100', f'DTM={runs}/dtm_300']
    found = tool.read_runs(names, None)
    found[1][1].val.clear()  # the curve of a run that is not validated yet
    figure = tool.draw(found, 'loss', 'accuracy/top1')
    for axis in figure.axes[:2]:
        first, other, second = axis.get_lines()
        assert first.get_color() == second.get_color() != other.get_color()
        assert first.get_linestyle() == other.get_linestyle() == '-'
        assert second.get_linestyle() == '--'
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        'DTM, 100 ep. pre-training',
        'base, 100 ep. pre-training',
        'DTM, 300 ep. pre-training',
    ]
    dtm, base, _ = legend.legend_handles
    assert dtm.get_marker() != base.get_marker()


def test_given_lengths_win_over_the_configs(tool, runs):
    found = tool.read_runs([f'{runs}/dtm_100', f'{runs}/dtm_300'], [800, 1600])
    figure = tool.draw(found, 'loss', 'accuracy/top1', x='pretrain-epochs')
    (axis,) = figure.axes
    assert lines(axis) == {'dtm_100': ([800], [75]), 'dtm_300': ([1600], [80])}


def test_smoothing_averages_the_rows_before(tool):
    values = [4.0, 2.0, 9.0, 5.0]
    assert tool.smooth(values, 1).tolist() == values
    assert tool.smooth(values, 3) == pytest.approx([4, 3, 5, 16 / 3])
    # A loss that is none leaves a gap, not an end.
    gap = tool.smooth([1.0, float('nan'), 3.0, 5.0], 2).tolist()
    assert gap[::2] == [1, 3] and np.isnan(gap[1]) and gap[3] == 4


def test_bad_runs_are_named_and_the_rest_is_drawn(tool, runs, capsys):
    cut = runs / 'dtm_100/20260101_000000/vis_data/scalars.json'
    cut.write_text(cut.read_text()[:-12])
    (runs / 'empty').mkdir()
    out = runs / 'deep/curves.png'
    names = ['dtm_100', 'empty', 'absent', 'dtm_300']
    code = tool.main([*(str(runs / name) for name in names), '--out', str(out)])
    errors = capsys.readouterr().err
    assert code == 0
    assert f'{runs}/empty: no mmengine log' in errors
    assert f'{runs}/absent does not exist' in errors
    assert f'1 line(s) cut off or no JSON, left out: {cut}:10' in errors
    picture = np.asarray(Image.open(out))
    assert picture.shape[1] > 2 * picture.shape[0] and picture.min() < 100


def test_no_readable_run_is_an_error(tool, tmp_path):
    with pytest.raises(SystemExit, match='None of the runs has a readable log.'):
        tool.main([str(tmp_path), '--out', str(tmp_path / 'a.png')])
    assert not (tmp_path / 'a.png').exists()


def test_an_unknown_scalar_is_named_beside_the_known(tool, runs, capsys):
    out = str(runs / 'a.png')
    tool.main([str(runs / 'dtm_100'), '--loss', 'los', '--out', out])
    assert 'No train row has "los"; the logs hold: epoch, iter, loss' in (
        capsys.readouterr().err
    )


def test_one_length_is_no_curve(tool, runs):
    with pytest.raises(SystemExit, match='at least two lengths'):
        tool.main([str(runs / 'dtm_100'), '--x', 'pretrain-epochs'])


def test_lengths_must_match_the_runs(tool, runs):
    with pytest.raises(SystemExit):
        tool.main([str(runs / 'dtm_100'), '--pretrain-epochs', '1', '2'])


def test_a_run_is_laid_over_reference_runs(tool, runs):
    found = tool.read_runs([f'mine={runs}/dtm_100'], None)
    references = reference_logs('toy-')
    figure = tool.draw(found, 'loss', 'accuracy/top1', x='step', references=references)
    loss, accuracy = figure.axes
    assert {'toy-dtm', 'toy-token-wise', *lines(loss)} == {*lines(loss)}
    position, values = lines(loss)['toy-dtm']
    assert position == [row['step'] for row in references['toy-dtm'].train]
    assert 0 < values[-1] < values[0] < 1
    assert lines(loss)['mine, 100 ep. pre-training'][0] == [10, 20, 30, 40, 50]
    assert lines(accuracy)['mine, 100 ep. pre-training'][0] == [10, 20, 30, 40, 50]
    (legend,) = figure.legends
    named = {text.get_text() for text in legend.get_texts()}
    assert named == {*references, 'mine, 100 ep. pre-training'}


def test_reference_runs_go_by_the_start_of_their_names(tool, runs, tmp_path):
    assert {*reference_logs('toy-t')} == {'toy-token-wise'}
    words = [str(runs / 'dtm_100'), '--out', str(tmp_path / 'a.png'), '--reference']
    with pytest.raises(SystemExit, match='error: No reference run is called moon'):
        tool.main([*words, 'moon'])
    assert tool.main(words) == 0
    with pytest.raises(SystemExit):
        tool.main([*words, '--x', 'epoch'])
