"""The logged rate."""

import pytest
from tiny_run import log_rows, run_tool, write_config


def test_the_logged_rate_is_the_batch_by_the_steps_time(tmp_path):
    config = write_config(tmp_path, "custom_hooks = [dict(type='ThroughputHook')]")
    run_tool('train.py', config, '--work-dir', tmp_path / 'run', '--no-validate')
    rows = log_rows(tmp_path / 'run')
    assert len(rows) == 8
    for row in rows:  # 4 images a step, in the logged mean time of a step
        assert row['images_per_sec'] == pytest.approx(4 / row['time'])
