"""The command of a sandbox: its process, signals, time limit and exit status.

For example ``sh -c 'kill -SEGV $$'`` gives the status 139, as a shell would.

The command's process group is ours, so a terminal sends ^C to both.  A SIGINT that another process sends, as by ``kill
-INT PID``, is for us alone, and we forward it, as sudo(8) does: ``si_code`` and ``si_pid`` say who sent it
(sigaction(2)).  That of a process of our own group is not forwarded: timeout(1) sends it to the whole group as well.

To end the command with *all* its processes, also those that have left the group, this process adopts orphans
(PR_SET_CHILD_SUBREAPER in prctl(2)): when a process is killed, its child processes become ours and are killed next,
until none is left.
"""

import errno
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from types import FrameType
from typing import NamedTuple

from binfmtd.errors import SandboxError, UsageError

NOT_FOUND = 127  # as in shells
NOT_EXECUTABLE = 126
TIMED_OUT = 124  # as in timeout(1)
TO_US = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
BY_THE_TERMINAL = (signal.SIGINT, signal.SIGQUIT)  # it sends them to the command as well as to us
BY_A_PROCESS = 0  # the highest si_code of a signal that a process sent: SI_USER; the terminal's is SI_KERNEL
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
    """Run the command to its end.  The terminal signals it directly; signals of other processes we forward.

    After ``timeout`` seconds, or when SIGALRM comes from another process, all its processes are killed.  With
    ``leave_none`` this also happens to those that run on when the command has ended.  The daemon is spared.  Raises
    CommandError and SandboxError.

    The signals stay blocked: one that comes now must not interrupt the end of the sandbox.
    """
    adopts = leave_none or timeout is not None
    if adopts:
        from binfmtd.host.syscalls import adopt_orphans

        adopt_orphans()
    # Those that were ignored from the start (nohup) stay so, also for the command.
    forwarded = {number for number in (*TO_US, *BY_THE_TERMINAL) if signal.getsignal(number) is not signal.SIG_IGN}
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if it were ignored, the kernel would not report the command's end
    awaited = forwarded | {signal.SIGCHLD, *({signal.SIGALRM} if adopts else ())}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, awaited)

    def before_exec() -> None:
        for number in awaited:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if before is not None:
            before()

    started = time.monotonic()
    child = _start(command, environment, before_exec)
    if adopts:
        signal.setitimer(signal.ITIMER_REAL, min(timeout or 0, _LONGEST))  # 0: no timer
    killed = _wait(child, awaited, daemon if adopts else None)
    if adopts:
        signal.setitimer(signal.ITIMER_REAL, 0)
    status = child.wait()
    seconds = time.monotonic() - started
    timed_out = killed and status == -signal.SIGKILL
    if timed_out or leave_none:
        _kill_rest(daemon)
    return Outcome(TIMED_OUT if timed_out else status if status >= 0 else 128 - status, seconds, timed_out)


def _start(command: list[str], environment: dict[str, str], before: Callable[[], None]) -> subprocess.Popen[bytes]:
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


def _wait(
    child: subprocess.Popen[bytes], awaited: AbstractSet[signal.Signals], daemon: subprocess.Popen[bytes] | None
) -> bool:
    """Wait for the command's end, and forward signals to it; return True if SIGALRM came, for which it is killed.

    With a daemon, all other child processes are orphans.
    """
    killed = False
    while child.poll() is None:
        signalled = signal.sigwaitinfo(awaited)
        number = signalled.si_signo
        if number == signal.SIGCHLD:
            if daemon is not None:
                _collect_orphans(child, daemon)
        elif number == signal.SIGALRM:
            killed = True
            child.kill()
        elif number in TO_US or (signalled.si_code <= BY_A_PROCESS and _is_of_another_group(signalled.si_pid)):
            child.send_signal(number)
    return killed


def _is_of_another_group(sender: int) -> bool:
    try:
        return not sender or os.getpgid(sender) != os.getpgrp()  # 0: it is in a process namespace above ours
    except ProcessLookupError:  # it has ended
        return True


def _collect_orphans(child: subprocess.Popen[bytes], daemon: subprocess.Popen[bytes]) -> None:
    """Collect the child processes that have ended, but not the command: a build can leave thousands of orphans."""
    while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG)) is not None:
        if ended.si_pid == child.pid:
            return
        if ended.si_pid == daemon.pid:
            daemon.poll()
        else:
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
