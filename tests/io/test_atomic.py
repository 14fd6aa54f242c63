"""Atomic writes: whole or not at all, whatever interrupts them."""

import os
import signal

import pytest

from mmdtm.io import atomic_write, remove_leftovers, write_text


def content(folder) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize('moment', ['fsync', 'replace'])
def test_process_killed_while_writing_leaves_the_old_file(tmp_path, moment):
    path = tmp_path / 'epoch_1.pth'
    write_text(path, 'old')
    child = os.fork()
    if child == 0:
        setattr(os, moment, lambda *args: os.kill(os.getpid(), signal.SIGKILL))
        write_text(path, 'new')
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert path.read_text() == 'old'

    (tmp_path / 'mine.tmp').write_text("somebody else's")
    left = remove_leftovers(tmp_path)
    assert len(left) == 1 and left[0].name.startswith('epoch_1.pth.')
    assert content(tmp_path) == {'epoch_1.pth': 'old', 'mine.tmp': "somebody else's"}


def test_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    write_text(tmp_path / 'a', 'old')
    monkeypatch.setattr(os, 'fsync', lambda file: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_text(tmp_path / 'a', 'new')
    assert content(tmp_path) == {'a': 'old'}


def test_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, 'fsync', lambda f: (calls.append('fsync'), fsync(f)))
    monkeypatch.setattr(os, 'replace', lambda *a: (calls.append('name'), replace(*a)))
    write_text(tmp_path / 'new' / 'a', 'ü')
    assert calls == ['fsync', 'name']
    assert (tmp_path / 'new' / 'a').read_bytes() == 'ü'.encode()


def test_folder_is_whole_or_not_there(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic_write(tmp_path / 'set') as folder:
        folder.mkdir()
        (folder / 'half').touch()
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
    with atomic_write(tmp_path / 'set') as folder:
        folder.mkdir()
        (folder / 'whole').touch()
        assert not (tmp_path / 'set').exists()
    assert (tmp_path / 'set' / 'whole').exists()


def test_existing_file_is_kept_where_asked(tmp_path):
    write_text(tmp_path / 'a', 'old')
    with (
        pytest.raises(FileExistsError, match='a exists'),
        atomic_write(tmp_path / 'a', exist_ok=False),
    ):
        pass
    assert content(tmp_path) == {'a': 'old'}
