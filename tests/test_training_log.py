"""Logs that mmengine wrote, whole and damaged."""

import json

import pytest

from mmdtm.training_log import pretrained_epochs, read_training_log


def write_start(work_dir, name, rows):
    folder = work_dir / name / 'vis_data'
    folder.mkdir(parents=True)
    lines = ''.join(json.dumps(row) + '\n' for row in rows)
    (folder / 'scalars.json').write_text(lines)
    return folder / 'scalars.json'


def epochs(first, last, iters=4, loss=1.0):
    """Rows as mmengine writes them: two log lines an epoch, then a validation."""
    for epoch in range(first, last + 1):
        for step in (epoch * iters - iters // 2, epoch * iters):
            yield dict(lr=0.1, loss=loss, epoch=epoch, iter=step, step=step)
        yield {'accuracy/top1': 10.0 * epoch * loss, 'time': 0.1, 'step': epoch}


def test_rows_become_series_against_the_epoch(tmp_path):
    write_start(tmp_path, '20260101_000000', epochs(1, 3))
    log = read_training_log(tmp_path)
    assert log.iters_per_epoch == 4
    assert log.series('train', 'loss') == ([0.5, 1, 1.5, 2, 2.5, 3], [1.0] * 6)
    assert log.series('val', 'accuracy/top1') == ([1, 2, 3], [10.0, 20.0, 30.0])
    assert log.series('val', 'absent') == ([], [])
    assert log.broken == []


def test_a_log_cut_off_in_a_line_keeps_what_is_whole(tmp_path):
    file = write_start(tmp_path, '20260101_000000', epochs(1, 3))
    file.write_text(file.read_text()[:-30])
    log = read_training_log(tmp_path)
    assert log.series('val', 'accuracy/top1') == ([1, 2], [10.0, 20.0])
    assert len(log.train) == 6
    assert log.broken == [f'{file}:9']


def test_a_resumed_run_continues_and_replaces_what_it_trained_again(tmp_path):
    write_start(tmp_path, '20260101_000000', epochs(1, 4))
    write_start(tmp_path, '20260102_000000', epochs(4, 6, loss=2.0))
    log = read_training_log(tmp_path)
    assert log.series('val', 'accuracy/top1') == (
        [1, 2, 3, 4, 5, 6],
        [10.0, 20.0, 30.0, 80.0, 100.0, 120.0],
    )
    assert [row['step'] for row in log.train] == list(range(2, 26, 2))
    assert [row['loss'] for row in log.train] == [1.0] * 6 + [2.0] * 6


def test_a_restarted_run_forgets_the_first_start(tmp_path):
    write_start(tmp_path, '20260101_000000', epochs(1, 6))
    write_start(tmp_path, '20260102_000000', epochs(1, 2, loss=2.0))
    write_start(tmp_path, '20260103_000000', [])  # died before it logged
    log = read_training_log(tmp_path)
    assert log.series('val', 'accuracy/top1') == ([1, 2], [20.0, 40.0])


def test_the_timestamped_file_serves_where_scalars_are_missing(tmp_path):
    file = write_start(tmp_path, '20260101_000000', epochs(1, 2))
    file.rename(file.with_name('20260101_000000.json'))
    whole = read_training_log(tmp_path)
    assert len(whole.val) == 2
    for part in ('20260101_000000', '20260101_000000/vis_data/20260101_000000.json'):
        assert read_training_log(tmp_path / part).val == whole.val


def test_iteration_based_runs_count_iterations(tmp_path):
    rows = [dict(loss=2.0, iter=50, step=50), dict(mIoU=40.0, step=100)]
    write_start(tmp_path, '20260101_000000', rows)
    log = read_training_log(tmp_path)
    assert log.iters_per_epoch is None
    assert log.series('train', 'loss') == ([50], [2.0])
    assert log.series('val', 'mIoU') == ([100], [40.0])


def test_missing_logs_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere does not exist'):
        read_training_log(tmp_path / 'nowhere')
    with pytest.raises(FileNotFoundError, match='no mmengine log'):
        read_training_log(tmp_path)
    file = write_start(tmp_path, '20260101_000000', [])
    file.write_text('{"loss": 1.0, "it')
    with pytest.raises(ValueError, match='scalars.json: no readable row'):
        read_training_log(tmp_path)


def test_pre_training_length_is_that_of_the_checkpoint(tmp_path):
    file = write_start(tmp_path, '20260101_000000', epochs(1, 1))
    places = (tmp_path, file.parent.parent, file)
    assert [pretrained_epochs(read_training_log(place)) for place in places] == [
        None
    ] * 3
    parent = dict(id='a', config='dtm_vit-b_300e', changes={}, epoch=100)
    record = dict(parent, id='b', kind='fine-tuning', full_config={}, parent=parent)
    record['starts'] = [dict(code={})]
    (tmp_path / 'run.json').write_text(json.dumps(record))
    assert [pretrained_epochs(read_training_log(place)) for place in places] == [
        100
    ] * 3
