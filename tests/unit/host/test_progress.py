"""Waiting for a child that may hang."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from threading import Timer

import pytest
from support.waiting import SLOWNESS

from binfmtd.host.progress import ends

Start = Callable[[str], "subprocess.Popen[str]"]
PATIENCE = 0.5 * SLOWNESS
WORKS = "import select, sys\nwhile not select.select([sys.stdin], [], [], 0)[0]: pass"


@pytest.fixture
def start() -> Iterator[Start]:
    """Yield a function that starts a Python script, and returns when the script runs."""
    started: list[subprocess.Popen[str]] = []

    def start(script: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", f"print(flush=True)\n{script}"]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True))
        assert started[-1].stdout is not None
        assert started[-1].stdout.readline() == "\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            stream.close()


def test_a_child_that_works(start: Start) -> None:
    """A child that works may take several times the patience, since on a busy machine everything does."""
    process = start(WORKS)
    assert process.stdin is not None
    end = Timer(2 * PATIENCE, process.stdin.close)
    end.start()
    assert ends(process.pid, PATIENCE)
    end.join()


def test_a_child_that_does_nothing(start: Start) -> None:
    """A child that only sleeps counts as hanging."""
    assert not ends(start("import signal; signal.pause()").pid, PATIENCE)


def test_a_child_that_works_for_ever(start: Start) -> None:
    """A child that works for ever is given up in the end."""
    assert not ends(start("while True: pass").pid, PATIENCE)
