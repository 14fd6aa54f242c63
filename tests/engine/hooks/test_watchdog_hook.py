"""Runs that would wait for ever; tests/attack has such runs."""

import pytest

import mmdtm.plugin  # noqa: F401
from mmdtm.engine.hooks import WatchdogHook


def test_no_time_at_all():
    with pytest.raises(ValueError, match='timeout must be positive, got 0'):
        WatchdogHook(timeout=0)
