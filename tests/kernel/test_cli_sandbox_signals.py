"""Signals to ``binfmtd sandbox``: those of other processes are forwarded; the terminal's ^C reaches the command."""

import os
import pty
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import pytest
from support.cli import BINFMTD
from support.instance import Instance
from support.waiting import SLOWNESS, deadline_in

# Prints each signal that it gets, until SIGUSR1 ends it.
PRINTING = """
import signal, sys
numbers = {signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1}
signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
print("ready", flush=True)
while (number := signal.sigwait(numbers)) != signal.SIGUSR1:
    print(signal.Signals(number).name, flush=True)
sys.exit(5)
"""

OTHER_GROUP = ("setsid",)

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(instance: Instance) -> Iterator[Start]:
    """Yield a function that starts a sandbox, and assert that no file is left."""
    # pytest's own directory may be too long for the path of a socket.
    directory = tempfile.mkdtemp(prefix="b-", dir="/tmp")
    environment = os.environ | {"TMPDIR": directory}

    def start(*command: str, before: tuple[str, ...] = (), stdin: int | None = None) -> "subprocess.Popen[str]":
        whole = [*before, *BINFMTD, "sandbox", "--arch", "none", "--", *command]
        return instance.popen(whole, env=environment, stdin=stdin, stdout=subprocess.PIPE, text=True)

    yield start
    os.rmdir(directory)  # empty: nothing is left


def line_of(process: "subprocess.Popen[str]") -> str:
    """Return the next line that the command prints; AssertionError if it prints none."""
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], deadline_in(20) - time.monotonic())[0], "no line came"
    return process.stdout.readline().rstrip()


def rest_of(process: "subprocess.Popen[str]") -> str:
    """Return all that the ended command has printed since."""
    assert process.stdout is not None
    return process.stdout.read()


def test_an_interrupt_of_another_process(start: Start) -> None:
    """`kill -INT` of the sandbox's process ends the command, and so the sandbox."""
    process = start("sh", "-c", "echo ready; exec sleep 600", before=OTHER_GROUP)
    assert line_of(process) == "ready"
    process.send_signal(signal.SIGINT)
    assert process.wait(10 * SLOWNESS) == 128 + signal.SIGINT


def test_signals_of_other_processes(start: Start) -> None:
    """The command gets each signal once, and its own exit status is the sandbox's."""
    process = start(sys.executable, "-c", PRINTING, before=OTHER_GROUP)
    assert line_of(process) == "ready"
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGINT):
        process.send_signal(number)
        assert line_of(process) == number.name
    process.send_signal(signal.SIGUSR1)
    assert (process.wait(10 * SLOWNESS), rest_of(process)) == (5, "")


def test_an_interrupt_of_the_same_group(start: Start) -> None:
    """A process of the sandbox's group, such as timeout(1), sends SIGINT to the command itself: it is not forwarded."""
    process = start(sys.executable, "-c", PRINTING)
    assert line_of(process) == "ready"
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGUSR1)
    assert (process.wait(10 * SLOWNESS), rest_of(process)) == (5, "")


@pytest.mark.parametrize(("key", "name"), [(b"\x03", "SIGINT"), (b"\x1c", "SIGQUIT")])
def test_the_terminals_keys(start: Start, key: bytes, name: str) -> None:
    r"""A ^C or ^\ of the terminal, which goes to sandbox and command, reaches the command once.

    The sandbox is stopped meanwhile, so that a second signal would come after the first one.
    """
    ours, theirs = pty.openpty()
    process = start(sys.executable, "-c", PRINTING, before=("setsid", "--ctty"), stdin=theirs)
    os.close(theirs)
    assert line_of(process) == "ready"
    process.send_signal(signal.SIGSTOP)
    os.write(ours, key)
    assert line_of(process) == name
    process.send_signal(signal.SIGCONT)
    process.send_signal(signal.SIGUSR1)
    assert (process.wait(10 * SLOWNESS), rest_of(process)) == (5, "")
    os.close(ours)


@pytest.mark.parametrize("ignored", ["INT", "HUP", "CHLD"])
def test_ignored_signals(start: Start, ignored: str) -> None:
    """A signal that the caller ignores, as nohup does, stays ignored; SIGCHLD is needed, and is not."""
    process = start("sh", "-c", f"kill -{ignored} $$ $PPID; exit 4", before=("env", f"--ignore-signal={ignored}"))
    assert process.wait(10 * SLOWNESS) == 4
