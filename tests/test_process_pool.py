"""Commands that need one another: order, places, records, and stopping."""

import io
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from rich.console import Console
from tiny_run import wait_for

from mmdtm.process_pool import Job, ProcessPool


def sh(name: str, script: str, **kwargs) -> Job:
    return Job(name, ['sh', '-c', script], **kwargs)


def run(jobs, folder: Path, **kwargs) -> list[tuple[str, str]]:
    """Names of the jobs in the order in which they ended, with their problems."""
    with ProcessPool(jobs, folder, **kwargs) as pool:
        ended = pool.run(Console(file=io.StringIO()))
        return [(job.name, problem) for job, problem in ended]


def names(jobs, folder: Path, **kwargs) -> list[str]:
    ended = run(jobs, folder, **kwargs)
    assert not any(problem for _, problem in ended)
    return [name for name, _ in ended]


def chain(folder: Path, a='1', b='2', c='3') -> list[Job]:
    """Two jobs that need a first one; each writes its text into a file."""
    jobs = []
    for name, text in dict(a=a, b=b, c=c).items():
        out = folder / f'{name}.out'
        needs = ['a'] if jobs else []
        jobs.append(sh(name, f'echo {text} > {out}', needs=needs, makes=[out]))
    return jobs


def test_what_is_done_is_not_repeated(tmp_path):
    assert names(chain(tmp_path), tmp_path) == ['a', 'b', 'c']
    assert names(chain(tmp_path), tmp_path) == []
    (tmp_path / 'b.out').unlink()
    assert names(chain(tmp_path), tmp_path) == ['b']
    # What rests on a job is repeated with it, whether for its absence ...
    (tmp_path / 'a.out').unlink()
    assert names(chain(tmp_path), tmp_path) == ['a', 'b', 'c']
    # ... or for another command.
    assert names(chain(tmp_path, c='4'), tmp_path) == ['c']
    assert names(chain(tmp_path, a='5', c='4'), tmp_path) == ['a', 'b', 'c']
    # A cut-off record says nothing.
    (tmp_path / 'jobs/c').write_text('12')
    assert names(chain(tmp_path, a='5', c='4'), tmp_path) == ['c']
    pool = ProcessPool(chain(tmp_path, a='5', c='4'), tmp_path)
    pool.forget()
    assert len(pool.waiting()) == 3


def test_says_how_long_a_job_took(tmp_path):
    job = sh('a', 'sleep 0.2')
    assert names([job], tmp_path) == ['a']
    # A file's time is up to 10 ms old.
    assert ProcessPool([job], tmp_path).seconds('a') >= 0.19


def test_a_changed_file_or_key_repeats_the_job(tmp_path):
    config = tmp_path / 'config'
    config.write_text('1')
    assert names([sh('a', 'true', files=[config])], tmp_path) == ['a']
    config.write_text('2')
    assert names([sh('a', 'true', files=[config])], tmp_path) == ['a']
    # A key stands for both: how a job is started may differ.
    assert names([sh('a', 'true', key='x')], tmp_path) == ['a']
    assert names([sh('a', 'exec true', key='x')], tmp_path) == []
    assert names([sh('a', 'exec true', key='y')], tmp_path) == ['a']


def test_a_failure_holds_back_what_needs_it_and_nothing_else(tmp_path):
    jobs = [
        sh('bad', 'echo said; exit 3'),
        sh('after', 'true', needs=['bad']),
        sh('alone', 'true', needs=['after'], alone=True),
        sh('idle', 'true', makes=[tmp_path / 'x']),
        sh('hollow', 'true', missing=lambda: 'has no value'),
        sh('good', 'true'),
    ]
    assert run(jobs, tmp_path) == [
        ('bad', 'ended with exit code 3'),
        ('idle', f'did not write {tmp_path}/x'),
        ('hollow', 'has no value'),
        ('good', ''),
    ]
    pool = ProcessPool(jobs, tmp_path)
    assert pool.tail('bad', 1) == 'said'
    assert [job.name for job in pool.waiting()] == [
        'bad', 'after', 'alone', 'idle', 'hollow',
    ]  # fmt: skip


def test_the_longest_begin_first_and_nothing_overtakes_one_that_runs_alone(tmp_path):
    seconds = dict(a=1.0, b=3.0, c=2.0, d=9.0, e=4.0)
    jobs = [sh(n, 'true', seconds=s, alone=n == 'd') for n, s in seconds.items()]
    assert names(jobs, tmp_path) == ['b', 'c', 'a', 'd', 'e']
    jobs = [sh('a', 'sleep 0.5', key='2'), sh('b', 'true', needs=['a'], alone=True)]
    jobs.append(sh('c', 'true', key='2'))
    assert names(jobs, tmp_path, places=[{}, {}]) == ['a', 'b', 'c']


def test_places_and_what_runs_alone(tmp_path):
    script = f'echo begin $PLACE $OWN >> {tmp_path}/log; sleep 0.5; echo end >> '
    jobs = [sh(name, f'{script}{tmp_path}/log') for name in 'ab']
    jobs.append(sh('c', f'{script}{tmp_path}/log', alone=True))
    jobs.append(sh('d', f'{script}{tmp_path}/log', environment=dict(OWN='7')))
    names(jobs, tmp_path, places=[dict(PLACE='1', OWN='5'), dict(PLACE='2')])
    lines = (tmp_path / 'log').read_text().splitlines()
    assert sorted(lines[:2]) == ['begin 1 5', 'begin 2']
    assert lines[2:6] == ['end', 'end', 'begin', 'end']
    assert lines[6:] in (['begin 1 7', 'end'], ['begin 2 7', 'end'])


def test_jobs_out_of_order_are_refused(tmp_path):
    for jobs in (
        [sh('a', 'true'), sh('a', 'false')],
        [sh('a', 'true', needs=['b']), sh('b', 'true')],
    ):
        with pytest.raises(ValueError, match="Job 'a' comes twice, or before"):
            ProcessPool(jobs, tmp_path)


def state(pid: int) -> str | None:
    """A process's state; Z once it ended and nobody has asked for its exit code."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().split()[2]
    except OSError:
        return None


def test_asked_to_end_the_pool_ends_all_that_was_started(tmp_path):
    """Those who tidy up get the time for it, and a grandchild is not forgotten."""
    tidy = f'trap "sleep 0.3; touch {tmp_path}/tidy; exit 0" TERM; touch {tmp_path}/on'
    parent = f'sh -c "echo \\$\\$ > {tmp_path}/pid; exec sleep 60"; true'
    jobs = [sh('tidy', f'{tidy}; while :; do sleep 0.1; done'), sh('parent', parent)]

    def ask() -> None:
        wait_for(lambda: (tmp_path / 'on').exists() and (tmp_path / 'pid').exists())
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=ask)
    with pytest.raises(KeyboardInterrupt):
        with ProcessPool(jobs, tmp_path, places=[{}, {}]) as pool:
            thread.start()
            list(pool.run(Console(file=io.StringIO())))
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before
    assert (tmp_path / 'tidy').exists()
    pid = int((tmp_path / 'pid').read_text())
    wait_for(lambda: state(pid) in (None, 'Z'))
    assert len(ProcessPool(jobs, tmp_path).waiting()) == 2


KILLED = """
import sys
from pathlib import Path
from rich.console import Console
from mmdtm.process_pool import Job, ProcessPool
jobs = [Job('a', ['sh', '-c', f'sleep {sys.argv[2]}']), Job('b', ['true'])]
with ProcessPool(jobs, Path(sys.argv[1])) as pool:
    list(pool.run(Console()))
"""


def test_a_job_that_outlives_its_pool_is_known_to_have_ended(tmp_path):
    process = subprocess.Popen([sys.executable, '-c', KILLED, str(tmp_path), '1.5'])
    wait_for(lambda: (tmp_path / 'jobs/a').exists())
    wait_for(lambda: len((tmp_path / 'jobs/a').read_text().split()) == 3)
    process.kill()
    process.wait()
    jobs = [Job('a', ['sh', '-c', 'sleep 1.5']), Job('b', ['true'])]
    with pytest.raises(BlockingIOError, match=r'process groups: \d+') as error:
        run(jobs, tmp_path)
    group = int(re.search(r'groups: (\d+)', str(error.value))[1])
    assert os.getpgid(group) == group
    wait_for(lambda: len((tmp_path / 'jobs/a').read_text().split()) == 4)
    wait_for(lambda: state(group) in (None, 'Z'))
    assert names(jobs, tmp_path) == ['b']


def test_time_left_is_read_from_what_this_attempt_has_logged(tmp_path):
    lines = '[1][5/9]  eta: 0:09:00\n[1][6/9]  eta: 1 day, 0:01:07  x\n'
    (tmp_path / 'lines').write_text(lines)
    jobs = [sh('a', f'sleep 0.5; cat {tmp_path}/lines; sleep 1')]
    (tmp_path / 'logs').mkdir()
    (tmp_path / 'logs/a.log').write_text('eta: 3:33:33\n')
    output = io.StringIO()
    with ProcessPool(jobs, tmp_path) as pool:
        list(pool.run(Console(file=output, force_terminal=True, width=150)))
    assert '(1 day, 0:01:07)' in output.getvalue()
    assert '3:33:33' not in output.getvalue()
