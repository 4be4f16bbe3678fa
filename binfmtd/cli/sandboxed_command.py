"""The command of a sandbox: its process, signals, time limit and exit status.

For example ``sh -c 'kill -SEGV $$'`` gives the status 139, as a shell would.

The command's process group is ours, so a terminal sends ^C to both.  To end the command with *all* its processes, also
those that have left the group, this process adopts orphans (PR_SET_CHILD_SUBREAPER in prctl(2)): when a process is
killed, its child processes become ours and are killed next, until none is left.
"""

import errno
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NamedTuple

from binfmtd.errors import SandboxError, UsageError

NOT_FOUND = 127  # as in shells
NOT_EXECUTABLE = 126
TIMED_OUT = 124  # as in timeout(1)
TO_US = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
BY_THE_TERMINAL = (signal.SIGINT, signal.SIGQUIT)  # it sends them to the command as well as to us
_LONGEST = 1e9  # seconds, 32 years: a timer of Python's takes up to 2^63 ns

_Handler = Callable[[int, FrameType | None], object] | signal.Handlers


class Outcome(NamedTuple):
    """The end of a command.  ``seconds`` are those of the command alone, without the start of the sandbox."""

    status: int  # 128 and the signal's number if a signal ended it, TIMED_OUT if its time limit did
    seconds: float
    timed_out: bool = False


class CommandError(UsageError):
    """A command that cannot be started; the exit status is the one that a shell would give."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def handle(numbers: Sequence[int], handler: _Handler) -> None:
    """Set the handler for these signals, except for those that were ignored from the start (nohup): they stay so."""
    for number in numbers:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


@contextmanager
def uninterrupted() -> Iterator[set[int | signal.Signals]]:
    """Block signals until the cleanup of what begins here is registered; yield the mask that is restored then."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (*TO_US, *BY_THE_TERMINAL))
    try:
        yield before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run_command(
    command: list[str],
    environment: dict[str, str],
    before: Callable[[], None] | None,
    daemon: subprocess.Popen[bytes],
    *,
    timeout: float | None = None,
    leave_none: bool = False,
) -> Outcome:
    """Run the command to its end.  The terminal signals it directly; other signals we forward.

    After ``timeout`` seconds, or when SIGALRM comes from another process, all its processes are killed.  With
    ``leave_none`` this also happens to those that run on when the command has ended.  The daemon is spared.  Raises
    CommandError and SandboxError.
    """
    process: int | None = None  # a pidfd, open as long as signals can come
    early: list[int] = []
    killed = False

    def send(number: int) -> None:
        if process is None:
            early.append(number)
        else:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, number)

    def kill(*_: object) -> None:
        nonlocal killed
        killed = True
        send(signal.SIGKILL)

    handle(TO_US, lambda number, _: send(number))
    handle(BY_THE_TERMINAL, lambda *_: None)  # not SIG_IGN: the command would inherit that
    adopts = leave_none or timeout is not None
    if adopts:
        from binfmtd.host.syscalls import adopt_orphans

        signal.signal(signal.SIGALRM, kill)
        adopt_orphans()
    started = time.monotonic()
    child = _start(command, environment, before)
    process = os.pidfd_open(child.pid)
    for number in early:
        send(number)
    if adopts:
        signal.setitimer(signal.ITIMER_REAL, min(timeout or 0, _LONGEST))  # 0: no timer
        _wait(child, daemon)
        signal.setitimer(signal.ITIMER_REAL, 0)
    status = child.wait()
    seconds = time.monotonic() - started
    timed_out = killed and status == -signal.SIGKILL
    if timed_out or leave_none:
        _kill_rest(daemon)
    return Outcome(TIMED_OUT if timed_out else status if status >= 0 else 128 - status, seconds, timed_out)


def _start(
    command: list[str], environment: dict[str, str], before: Callable[[], None] | None
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(command, env=os.environ | environment, preexec_fn=before)  # noqa: PLW1509  one thread
    except FileNotFoundError:
        raise CommandError(f"{command[0]!r}: not found", NOT_FOUND) from None
    except OSError as error:
        remedy = ""
        if error.errno == errno.ENOEXEC:
            arch = "name its architecture, which `binfmtd explain FILE` prints, with --arch"
            remedy = f": no handler of this sandbox takes it: {arch}"
        raise CommandError(f"{command[0]!r}: {error.strerror}{remedy}", NOT_EXECUTABLE) from None
    except subprocess.SubprocessError:  # in ``before``; subprocess does not report the reason
        raise SandboxError(
            "the command's own user namespace or root directory cannot be set up: see the sysctl "
            "user.max_user_namespaces"
        ) from None


def _wait(child: subprocess.Popen[bytes], daemon: subprocess.Popen[bytes]) -> None:
    """Wait for the command.  Meanwhile collect orphans that have ended: a build can leave thousands of them."""
    while child.poll() is None:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        assert ended is not None  # noqa: S101  for the type checker: that is so only with WNOHANG
        if ended.si_pid == daemon.pid:
            daemon.poll()
        elif ended.si_pid != child.pid:
            os.waitpid(ended.si_pid, 0)


def _kill_rest(daemon: subprocess.Popen[bytes]) -> None:
    """Kill each child process but the daemon, then the orphans that become ours by that, until none is left.

    A process id in this list cannot be another process's: it is ours until we collect it.
    """
    while True:
        with open("/proc/thread-self/children", encoding="ascii") as file:
            children = [pid for pid in map(int, file.read().split()) if pid != daemon.pid]
        if not children:
            return
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        for pid in children:
            os.waitpid(pid, 0)
