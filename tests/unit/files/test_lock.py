"""A lock for short work on a file."""

import errno
import fcntl
import os
import stat
from pathlib import Path

import pytest

from binfmtd.files.lock import FileLock


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "lock")


def test_one_at_a_time(path: str) -> None:
    """A second process waits for the lock; only the owner may open its file, which is removed with the lock."""
    first, second = FileLock(path), FileLock(path)
    assert first.take()
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert not second.take()
    assert not second.wait(0.01)
    first.give_back()
    assert not os.path.exists(path)
    assert second.wait(10)
    second.give_back()
    second.give_back()
    assert not os.path.exists(path)


def test_one_that_was_removed_is_not_taken(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock file that its holder removed between our open and our flock is not taken: another may exist by now."""
    flock = fcntl.flock

    def late(descriptor: int, operation: int) -> None:
        monkeypatch.undo()
        os.unlink(path)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    lock = FileLock(path)
    assert not lock.take()
    assert lock.take()
    lock.give_back()


@pytest.mark.parametrize("fails", ["flock", "lstat"])
def test_what_cannot_be_locked_leaves_nothing_open(path: str, monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    """If locking fails (NFS without a lock daemon, say), no descriptor stays open that would keep the lock."""

    def failing(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    before = os.listdir("/proc/self/fd")
    with monkeypatch.context() as patch:
        patch.setattr(*((fcntl, "flock", failing) if fails == "flock" else (os, "lstat", failing)))
        with pytest.raises(OSError, match="No locks available"):
            FileLock(path).take()
    assert os.listdir("/proc/self/fd") == before
    assert FileLock(path).take()


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EDQUOT])
def test_where_no_file_can_be_made_it_counts_as_taken(path: str, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """On a file system that is read-only or full the lock counts as taken: no process can make a file there.

    A process that only reads the result can go on, also one that removes files, and one that writes gets that error.
    """

    def refused(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refused)
    lock = FileLock(path)
    assert lock.take()
    lock.give_back()


def test_without_a_directory_it_counts_as_taken(tmp_path: Path) -> None:
    """Without its directory the lock counts as taken, and the directory is not made for it."""
    lock = FileLock(str(tmp_path / "nothing" / "lock"))
    assert lock.take()
    lock.give_back()
    assert os.listdir(tmp_path) == []
