"""Writing lines for which the kernel opens an interpreter on a file system that may not answer."""

import _thread
import errno
import os
from pathlib import Path
from typing import Any

import pytest

from binfmtd.errors import Again
from binfmtd.host.bounded import BoundedCalls
from binfmtd.kernel.mount import Mounted
from binfmtd.kernel.writer import Writer, refusal
from binfmtd.model.handler import Flags, Registration
from binfmtd.model.match import Magic

LINES = [b":one:M::one::/remote/one:F", b":two:M::two::/remote/two:F"]
OPENING = {0: "/remote/one", 1: "/remote/two"}


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    """Return a writer whose ``register`` is an ordinary file."""
    (tmp_path / "register").touch()
    return Writer(Mounted(str(tmp_path), tmp_path.stat().st_dev, read_only=False), BoundedCalls(10.0))


def descriptors() -> set[str]:
    """Return the descriptors that are open in this process."""
    return set(os.listdir("/proc/self/fd"))


def test_each_line_is_written(writer: Writer, tmp_path: Path) -> None:
    """A thread writes each line, to an open file of its own: writes to one wait for each other.  It is closed again."""
    before = descriptors()
    assert writer.register(LINES[:1], OPENING) == [None]
    assert (tmp_path / "register").read_bytes() == LINES[0]
    assert writer.register(LINES, OPENING) == [None, None]
    assert (tmp_path / "register").read_bytes() == LINES[1], "each line at the beginning"
    assert descriptors() == before
    assert [wrote.writes for wrote in writer.take_wrote()] == [1, 0, 1, 1, 0]


def test_no_thread_is_left(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the kernel refuses the threads, the lines count as late, and `register` does not stay open."""

    def refused(*_: object) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", refused)
    before = descriptors()
    assert [error and error.errno for error in writer.register(LINES, OPENING)] == [errno.ETIMEDOUT] * 2
    assert descriptors() == before


def test_no_descriptor_is_left(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """If no descriptor is left for the thread, the line is refused, and is tried again later."""
    opened, left = os.open, iter(["one for the directory", "one for `register` itself"])

    def open_what_is_left(*arguments: Any, **options: Any) -> int:
        if next(left, None) is None:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return opened(*arguments, **options)

    monkeypatch.setattr(os, "open", open_what_is_left)
    (error,) = writer.register(LINES[:1], {0: OPENING[0]})
    assert error is not None
    registration = Registration(Magic(b"one"), OPENING[0], Flags.F)
    assert refusal(registration, error).again is Again.LATER
