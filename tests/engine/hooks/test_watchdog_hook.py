"""Runs that would wait for ever; tests/attack has such runs."""

import threading
import time

import pytest

import mmdtm.plugin  # noqa: F401
from mmdtm.engine.hooks import WatchdogHook


class Run:
    """Stands for a runner, of which the thread needs nothing while all goes well."""


def test_no_time_at_all():
    with pytest.raises(ValueError, match='timeout must be positive, got 0'):
        WatchdogHook(timeout=0)


def test_no_thread_outlives_a_run():
    """It would let go of the model while the interpreter ends, and abort it."""
    hook, runner, before = WatchdogHook(), Run(), threading.active_count()
    for _ in range(2):
        hook.before_run(runner)
        assert threading.active_count() == before + 1
        hook.after_run(runner)
        assert threading.active_count() == before


def test_a_failed_run_is_not_kept():
    hook, before = WatchdogHook(timeout=0.1), threading.active_count()
    hook.before_run(Run())
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before
