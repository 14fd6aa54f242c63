"""File systems that are full, read-only or over quota; folders left in disorder."""

import builtins
import errno
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from kills import InSave, unbroken
from runs import RECIPES, Recipe, Start, at_step, differences, losses, newest_step

RECIPE = RECIPES[0]
MOUNT = ['mount', '-t', 'tmpfs', '-o']
FIRST, LAST = 3, 5  # of the steps in which nothing can be written


def prepared(
    folder: Path, name: str, recipe: Recipe = RECIPE
) -> tuple[Path, Path, Path]:
    """The config, an empty work folder, and that of the unbroken run."""
    config, reference, _ = unbroken(recipe, folder)
    run = folder / 'runs' / re.sub(r'\W+', '_', name)
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir(parents=True)
    return config, run, reference


@contextmanager
def run_of(folder: Path, name: str) -> Iterator[tuple[Path, Path, Path]]:
    """:func:`prepared`; the run is removed if all is well."""
    config, run, reference = prepared(folder, name)
    yield config, run, reference
    shutil.rmtree(run, ignore_errors=True)


def go_on(recipe: Recipe, config: Path, run: Path, reference: Path) -> None:
    """Resume, and compare the end with the unbroken run's."""
    finish(Start(config, run, '--resume', 'auto', processes=recipe.processes))
    equal(run, reference, recipe.processes)


def finish(start: Start, code: int = 0) -> None:
    """Wait for the end, and see that it is the expected one.

    Raises:
        AssertionError: It is another.
    """
    codes = start.wait()
    start.end()
    assert codes == [code] * len(codes), f'{codes}: {start.output[-3000:]}'


def equal(run: Path, reference: Path, processes: int = 1) -> None:
    """See that a run came to the unbroken one's end.

    Raises:
        AssertionError: It did not; names the difference.
    """
    assert not (problem := differences(run, reference, processes)), problem


def check_fault(run: Path, reference: Path, start: Start, words: str) -> None:
    """See that a run went on through its fault, and said so.

    Raises:
        AssertionError: It did not.
    """
    finish(start)
    equal(run, reference)
    output = start.output
    assert f'step {FIRST} is not saved' in output and words in output, output[-3000:]
    assert f'until then {run}/iter_{FIRST - 1}.pth' in output, output[-3000:]
    assert f'step {LAST + 1} is not saved' not in output
    assert not list(run.rglob('*.tmp'))


def full_disk(folder: Path) -> None:
    """A file system of some megabytes that is full for three steps."""
    with run_of(folder, 'full_disk') as (config, run, reference):
        size = max(path.stat().st_size for path in reference.glob('*.pth'))
        subprocess.run([*MOUNT, f'size={8 * size}', 'tmpfs', run], check=True)
        try:

            def fill() -> None:
                with open(run / 'ballast', 'wb', buffering=0) as ballast:
                    try:
                        while ballast.write(bytes(4096)):
                            pass
                    except OSError as error:
                        assert error.errno == errno.ENOSPC

            def sabotage(rank: int) -> None:
                at_step(FIRST, fill)
                at_step(LAST + 1, (run / 'ballast').unlink)

            start = Start(config, run, sabotage=sabotage)
            check_fault(run, reference, start, 'No space left')
        finally:
            subprocess.run(['umount', '-l', run], check=True)


def size_limit(folder: Path) -> None:
    """A limit of the process on the size of its files."""
    with run_of(folder, 'size_limit') as (config, run, reference):

        def limit(size: int) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

        def sabotage(rank: int) -> None:
            at_step(FIRST, partial(limit, 100_000))
            at_step(LAST + 1, partial(limit, resource.RLIM_INFINITY))

        start = Start(config, run, sabotage=sabotage)
        check_fault(run, reference, start, 'File too large')


def deny(number: int, below: Path) -> Callable[[], None]:
    """Let nothing be written below a folder in this process; gives the way back."""
    originals = builtins.open, Path.open, os.replace
    plain, _, replace = originals

    def denying(file, mode='r', *args, **kwargs):
        inside = isinstance(file, (str, Path)) and str(file).startswith(str(below))
        ours = 'losses_' in str(file)  # is to tell what happened
        if inside and not ours and set(mode) & set('wax+'):
            raise OSError(number, os.strerror(number), str(file))
        return plain(file, mode, *args, **kwargs)

    def no_replace(source, target):
        raise OSError(number, os.strerror(number), str(target))

    builtins.open, os.replace = denying, no_replace
    Path.open = lambda self, mode='r', *args, **kwargs: denying(
        self, mode, *args, **kwargs
    )

    def allow() -> None:
        builtins.open, Path.open, os.replace = originals

    return allow


def errors(name: str, folder: Path) -> None:
    """An error of the file system for three steps, in whatever is written."""
    number = getattr(errno, name)
    with run_of(folder, name) as (config, run, reference):

        def sabotage(rank: int) -> None:
            ways_back = []
            at_step(FIRST, lambda: ways_back.append(deny(number, run)))
            at_step(LAST + 1, lambda: ways_back.pop()())

        start = Start(config, run, sabotage=sabotage)
        check_fault(run, reference, start, os.strerror(number))


def full_at_the_end(folder: Path) -> None:
    """The last checkpoint cannot be written: an error, and a resumed run ends well."""
    with run_of(folder, 'full_at_the_end') as (config, run, reference):
        last = losses(reference)[-1][0]

        def sabotage(rank: int) -> None:
            at_step(last, lambda: deny(errno.ENOSPC, run))

        start = Start(config, run, sabotage=sabotage)
        finish(start, 1)
        assert newest_step(run) == last - 1
        assert 'No space left' in start.output
        go_on(RECIPE, config, run, reference)


def preempted_on_a_full_disk(folder: Path) -> None:
    """What cannot be saved is said, and the earlier checkpoint is gone on from."""
    with run_of(folder, 'preempted') as (config, run, reference):

        def sabotage(rank: int) -> None:
            def both() -> None:
                deny(errno.ENOSPC, run)
                os.kill(os.getpid(), signal.SIGTERM)

            at_step(4, both)

        start = Start(config, run, sabotage=sabotage)
        finish(start, 75)
        assert 'could not be saved' in start.output, start.output[-3000:]
        assert newest_step(run) == 3
        go_on(RECIPE, config, run, reference)


def half_written_files(folder: Path) -> None:
    """What a killed save left goes at the next start, and nothing else."""
    with run_of(folder, 'half_written') as (config, run, reference):
        start = Start(config, run, sabotage=InSave(20, 'within'))
        finish(start, -signal.SIGKILL)
        (run / 'mine.tmp').write_text('of the user')
        (run / 'iter_9.pth.0123abcd.tmp').write_bytes(b'half')
        finish(Start(config, run, '--resume', 'auto'))
        assert [path.name for path in run.glob('*.tmp')] == ['mine.tmp']
        equal(run, reference)


def last_checkpoint(content: bytes | None, folder: Path) -> None:
    """The newest checkpoint is found whatever ``last_checkpoint`` has become."""
    with run_of(folder, f'last_checkpoint {content!r:.8}') as (config, run, reference):
        killed = Start(config, run, sabotage=lambda _: at_step(4, lambda: os._exit(9)))
        finish(killed, 9)
        (run / 'last_checkpoint').unlink()
        if content is not None:
            (run / 'last_checkpoint').write_bytes(content)
        finish(Start(config, run, '--resume', 'auto'))
        assert [step for step, _ in losses(run)][3] == 4
        equal(run, reference)


def two_runs(folder: Path) -> None:
    """The second run in a folder is refused, and the first does not notice."""
    with run_of(folder, 'two_runs') as (config, run, reference):
        going, waiting = os.pipe(), os.pipe()

        def sabotage(rank: int) -> None:
            def pause() -> None:
                os.write(going[1], b'.')
                os.read(waiting[0], 1)

            at_step(3, pause)

        first = Start(config, run, sabotage=sabotage)
        os.read(going[0], 1)
        second = Start(config, run, '--resume', 'auto')
        finish(second, 1)
        who = f'process {first.pids[0]} on {socket.gethostname()}'
        os.write(waiting[1], b'.')
        finish(first)
        assert who in second.output, second.output
        equal(run, reference)


def may_mount() -> bool:
    """Whether this user may, which most may not."""
    with tempfile.TemporaryDirectory() as folder:
        command = [*MOUNT, 'size=4096', 'tmpfs', folder]
        if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
            return False
        subprocess.run(['umount', folder], check=True)
    return True


FAILING, LEFT, TWO = 'disk: saves that fail', 'disk: leftovers', 'disk: two runs'
ATTACKS = {
    **({'full for three steps (tmpfs)': (FAILING, full_disk)} if may_mount() else {}),
    'files over a limit for three steps': (FAILING, size_limit),
    **{
        f'{name} for three steps': (FAILING, partial(errors, name))
        for name in ('ENOSPC', 'EROFS', 'EDQUOT', 'EIO', 'ESTALE')
    },
    'full at the last save': (FAILING, full_at_the_end),
    'full when told to stop': (FAILING, preempted_on_a_full_disk),
    'half-written files': (LEFT, half_written_files),
    **{
        f'last_checkpoint {content}': (LEFT, partial(last_checkpoint, content))
        for content in (None, b'', b'\xff\0', b'/nowhere/iter_3.pth')
    },
    'two runs in one folder': (TWO, two_runs),
}
