"""The line that shows how far a command is."""

import io
import os
import pty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from binfmtd.cli import progress
from binfmtd.cli.progress import Progress, in_words


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """Make stderr a terminal of 80 columns; yield a function that returns what is on it since the last call."""
    ours, its = pty.openpty()
    os.set_blocking(ours, False)

    def written() -> str:
        text = b""
        with suppress(BlockingIOError):
            while True:
                text += os.read(ours, 4096)
        return text.decode()

    with open(its, "w", encoding="utf-8") as stderr, os.fdopen(ours), monkeypatch.context() as patch:
        patch.setattr("sys.stderr", stderr)
        yield written


def test_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line is replaced in place, no longer than the terminal is wide, and erased at the end."""
    monkeypatch.setattr(progress, "_SECONDS", 0)
    monkeypatch.setattr(progress, "_BETWEEN", 0)
    with terminal(monkeypatch) as written:
        with Progress() as line:
            line.show("copying one")
            line.show("copying \x1b[31m" + "x" * 200)
        parts = written().split("\r")
    assert [part.rstrip() for part in parts[:2]] == ["", "copying one"]
    assert parts[2].startswith("copying \\x1b[31mx")
    assert [part.strip() for part in parts[3:]] == ["", ""]
    assert max(map(len, parts)) <= 79


def test_short_work_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work of less than a second shows no line, and nothing is erased."""
    with terminal(monkeypatch) as written:
        with Progress() as line:
            for _ in range(1000):
                line.show("copying")
        assert written() == ""


def test_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file or a pipe gets nothing."""
    monkeypatch.setattr("sys.stderr", stream := io.StringIO())
    monkeypatch.setattr(progress, "_SECONDS", 0)
    with Progress() as line:
        line.show("copying")
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (14 << 20, "14.0 MiB"),
        (3 << 30, "3.0 GiB"),
        (5 << 40, "5120.0 GiB"),
    ],
)
def test_sizes(size: int, text: str) -> None:
    """Sizes have a binary unit, up to GiB."""
    assert in_words(size) == text
