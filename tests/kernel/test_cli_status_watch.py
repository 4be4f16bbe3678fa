"""``binfmtd status --watch``: each change is shown, on a terminal and for scripts."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support.cli import BINFMTD, Cli
from support.daemon import StartDaemon
from support.instance import Instance
from support.waiting import wait_until

InotifyWatcher = Callable[..., "Watching"]

CONFIG = """
architectures = []
[handlers.one]
magic = '\\x00one'
interpreter = "/usr/bin/true"
"""
MANY = "architectures = []\n" + "".join(
    f"[handlers.a-rather-long-name-{n}]\nmagic = '\\x00{n:02}'\ninterpreter = '/nowhere/at/all/{'long/' * 20}{n}'\n"
    for n in range(40)
)


class Watching:
    """The command, and its output so far."""

    def __init__(self, state: Path, *options: str, terminal: tuple[int, int] | None = None, **environment: str) -> None:
        command = [*BINFMTD, "status", "--watch", "--state-dir", str(state), *options]
        self.terminal = terminal is not None
        if terminal is not None:
            self.output, its = pty.openpty()
            self.resize(*terminal)
        else:
            self.output, its = os.pipe()
        environ = {"TERM": "xterm"} | {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | environment
        self.process = subprocess.Popen(command, stdin=its, stdout=its, stderr=subprocess.PIPE, text=True, env=environ)
        os.close(its)
        os.set_blocking(self.output, False)
        self.text = ""

    def resize(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self.output, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def read(self) -> str:
        with suppress(BlockingIOError, OSError):  # a terminal that no process has open gives EIO
            while got := os.read(self.output, 65536):
                self.text += got.decode()
        return self.text

    @property
    def documents(self) -> list[dict[str, Any]]:
        """Return the documents so far; each has its own line."""
        return [json.loads(line) for line in self.read().splitlines(keepends=True) if line.endswith("\n")]

    @property
    def drawing(self) -> list[str]:
        """Return the lines that were drawn last, without colours; none before the first drawing is complete."""
        whole = [part for part in self.read().split("\x1b[H")[1:] if part.endswith("\x1b[J")]
        text = re.sub("\x1b\\[[0-9]*[mKJ]", "", whole[-1]) if whole else ""
        return re.split("\r+\n", text) if text else []  # the terminal puts its own \\r before each \\n

    def wait_for(self, text: str) -> None:
        if self.terminal:
            wait_until(lambda: text in "\n".join(self.drawing), what=f"{text!r} on the screen")
        else:
            wait_until(lambda: text in self.read(), what=repr(text))

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        os.close(self.output)


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[InotifyWatcher]:
    started: list[Watching] = []

    def start(*options: str, **how: Any) -> Watching:
        started.append(Watching(tmp_path / "daemon" / "state", *options, **how))
        return started[-1]

    yield start
    for each in started:
        each.close()


@contextmanager
def paused(instance: Instance, state: Path) -> Iterator[None]:
    cli = Cli(instance, state.parent)
    cli.state_directory = state
    assert cli("pause", "one", "--for", "10m").status == 0
    yield
    assert cli("resume").status == 0


def test_for_scripts(instance: Instance, start_daemon: StartDaemon, watch: InotifyWatcher) -> None:
    """With --json each state is one line: without a daemon, with one, paused, after a kill, with the next daemon."""
    watching = watch("--json")
    daemon = start_daemon(CONFIG)
    wait_until(lambda: watching.documents, what="the first state")
    assert watching.documents[-1]["pid"] == daemon.pid
    with paused(instance, daemon.state_directory):
        wait_until(lambda: watching.documents[-1]["state"] == "paused", what="paused")
    wait_until(lambda: watching.documents[-1]["state"] == "converged", what="converged")
    daemon.kill()
    wait_until(lambda: watching.documents[-1]["pid"] is None, what="the daemon's end")
    again = start_daemon(CONFIG)
    wait_until(lambda: watching.documents[-1]["pid"] == again.pid, what="another daemon")
    documents = watching.documents
    assert all(before != after for before, after in pairwise(documents))


def test_without_a_terminal(start_daemon: StartDaemon, watch: InotifyWatcher) -> None:
    """In a pipe the states follow each other without control characters; a killed daemon is shown at once."""
    daemon = start_daemon(CONFIG)
    watching = watch()
    watching.wait_for("state:     converged")
    watching.wait_for(f"daemon:    pid {daemon.pid}\n")
    daemon.kill()
    watching.wait_for("daemon:    none runs")
    assert watching.text.replace("\n", "").isprintable()
    watching.process.send_signal(signal.SIGINT)
    _, stderr = watching.process.communicate(timeout=60)
    assert (watching.process.returncode, stderr.count("\n")) == (130, 1), stderr


def test_on_a_terminal(instance: Instance, start_daemon: StartDaemon, watch: InotifyWatcher) -> None:
    """A terminal's alternate screen is drawn anew with each change, in colours; ^C restores the previous screen."""
    daemon = start_daemon(CONFIG)
    watching = watch(terminal=(24, 80))
    watching.wait_for("state:     converged")
    assert "\x1b[32mconverged" in watching.text
    with paused(instance, daemon.state_directory):
        watching.wait_for("paused:    one until 20")
    watching.wait_for("state:     converged")
    watching.process.send_signal(signal.SIGINT)  # as ^C does
    assert watching.process.wait(60) == 130
    assert watching.read().startswith("\x1b[?1049h\x1b[?25l\x1b[H")
    assert watching.text.endswith("\x1b[?25h\x1b[?1049l")
    assert watching.process.stderr is not None
    assert watching.process.stderr.read() == ""


def test_it_fits(start_daemon: StartDaemon, watch: InotifyWatcher) -> None:
    """The drawing never exceeds the terminal, also after a resize; the number of hidden lines is shown."""
    start_daemon(MANY)
    watching = watch(terminal=(24, 80))
    for lines, columns in ((24, 80), (40, 120), (16, 60)):
        watching.resize(lines, columns)
        watching.process.send_signal(signal.SIGWINCH)  # as the kernel sends it to the foreground processes
        wait_until(lambda n=lines: len(watching.drawing) == n, what=f"{lines} lines")  # type: ignore[misc]
        assert max(map(len, watching.drawing)) <= columns
        assert any(re.fullmatch(r"\.\.\. [0-9]+ more lines", line) for line in watching.drawing)
        assert watching.drawing[0].startswith("state:     waiting")


def test_no_colour(start_daemon: StartDaemon, watch: InotifyWatcher) -> None:
    """$NO_COLOR turns off colours; a terminal that cannot be drawn on gets one state after another."""
    start_daemon(CONFIG)
    plain, dumb = watch(terminal=(24, 80), NO_COLOR="1"), watch(terminal=(24, 80), TERM="dumb")
    plain.wait_for("state:     converged")
    assert "\x1b[32m" not in plain.text
    wait_until(lambda: "state:     converged" in dumb.read(), what="a state")
    assert "\x1b" not in dumb.text


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_closed_pipe_ends_it(start_daemon: StartDaemon, watch: InotifyWatcher, options: tuple[str, ...]) -> None:
    """The command ends when its pipe is closed, though nothing changes."""
    start_daemon(CONFIG)
    watching = watch(*options)
    wait_until(watching.read, what="a state")
    reading, watching.output = watching.output, os.open(os.devnull, os.O_RDONLY)
    os.close(reading)
    _, stderr = watching.process.communicate(timeout=60)
    assert (watching.process.returncode, stderr) == (1, "")


def test_it_is_not_a_check(watch: InotifyWatcher) -> None:
    """`--watch` with `--check` is one clear error."""
    watching = watch("--check")
    _, stderr = watching.process.communicate(timeout=60)
    assert watching.process.returncode == 2
    assert "not allowed with argument" in stderr
