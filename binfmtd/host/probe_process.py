"""One process of a probe: it becomes the program in its root directory, and is observed until its end.

The process stops in its execve (PTRACE_TRACEME).  /proc/PID/exe then is the file that runs: the program itself, or an
emulator.
"""

import errno
import os
import resource
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import NamedTuple

from binfmtd.errors import ProbeError
from binfmtd.host.progress import ends

EXIT_STATUS = 42
NAME = "program"
CHROOT, TRACE = b"C", b"T"  # the child writes this if the step is forbidden
_BLOCK = 1 << 20
_PIPE_BYTES = 1 << 16  # the size of a pipe (pipe(7))
_BROKEN = b"B"  # ... and this if another error prevents the start of the program
_NOT_IN_CHROOT = (
    "its interpreter does not exist in an empty root directory: its entry lacks flag F, or the emulator is "
    "dynamically linked"
)
_NOT_IN_TREE = (
    "its dynamic linker does not exist in the tree, or its interpreter does not: then its entry lacks flag F, or the "
    "emulator is dynamically linked"
)
_MEANINGS = {
    errno.ENOEXEC: "no entry takes it, and the host does not run it natively",
    errno.ENOENT: "its interpreter, or a file that the interpreter needs, is missing",
    errno.ELOOP: "its entry also matches its own interpreter, which is a loop",
}


class Attempt(NamedTuple):
    """The result of running one program.

    ``reason`` is why it does not run; empty if it runs.  ``as_expected``: the file that ran it has the content of the
    expected interpreter.  ``duration`` is in seconds, from the fork to the end; ``errno`` is execve's.  ``crashed``:
    the program, or its emulator, was killed by a signal other than SIGKILL, which ends programs that hang.  ``hung``:
    it was killed by that.  ``output`` is what the program of a deep check wrote to stdout, 64 KiB at most; it is not
    collected from other programs.
    """

    name: str
    runs: bool
    natively: bool | None
    in_chroot: bool
    reason: str
    duration: float
    as_expected: bool | None = None
    errno: int | None = None
    crashed: bool = False
    output: str = ""
    hung: bool = False


class Task(NamedTuple):
    """A program to run, and the way to do it.

    ``file`` is its path as we see it, and ``path`` the one that is executed, in the root directory ``root`` (None: in
    our own).  ``words`` are its argv, ``status`` is the exit status that it should have.  If it is ``checked``, its
    output is collected, and processes that it leaves are killed.
    """

    file: str
    path: str
    root: str | None
    words: tuple[str, ...] = (NAME,)
    environment: Mapping[str, str] = MappingProxyType({})
    status: int = EXIT_STATUS
    checked: bool = False

    @property
    def names_interpreter(self) -> bool:
        """True if an interpreter is executed by its own path, so that the kernel chooses no entry."""
        return self.root is None and self.path != self.file


class ProbeProcess:
    """One process that is to become the program."""

    def __init__(self, task: Task, patience: float, *, traced: bool) -> None:
        self._task = task
        self._patience = patience
        self._traced = traced
        self.forbidden = b""  # the step that the kernel forbade, CHROOT or TRACE

    def run(self, name: str, expected: str | None) -> Attempt:
        """Run the program to its end; the arguments as in Prober.  Raises ProbeError if it could not be started."""
        natively = as_expected = None
        began = time.monotonic()
        from binfmtd.host import syscalls

        reading, writing = os.pipe2(os.O_CLOEXEC)
        # Nothing waits for this pipe: more than fits is lost, and a process that outlives the program does not matter.
        output = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK) if self._task.checked else ()
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            self._be(writing, parent, *output[1:])
        os.close(writing)
        try:
            # The exec closes ``writing``, and stops the child then.  It hangs if the interpreter's file system does.
            status = self._end(child, sooner=reading if self._traced else None)
            if os.WIFSTOPPED(status):
                running = f"/proc/{child}/exe"
                natively = _is(running, self._task.file)
                as_expected = _is(running, expected) if expected else None
                syscalls.go_on(child)
                status = self._end(child)
            with open(reading, "rb", closefd=False) as file:
                answer = file.read()
            printed = _written_to(output[0]) if output else ""
        finally:
            for descriptor in (reading, *output):
                os.close(descriptor)
        if answer == _BROKEN:
            raise ProbeError("no program can be tried here: the child process failed before it could start one")
        if answer in (CHROOT, TRACE):
            self.forbidden = answer
        refusal = int(answer) if answer.isdigit() else None
        reason = self._why(status, refusal)
        duration = time.monotonic() - began
        ended_by = os.WTERMSIG(status) if refusal is None and os.WIFSIGNALED(status) else 0
        in_chroot = self._task.root is not None
        return Attempt(
            name,
            not reason,
            natively,
            in_chroot,
            reason,
            duration,
            as_expected,
            refusal,
            crashed=ended_by not in (0, signal.SIGKILL),
            output=printed,
            hung=ended_by == signal.SIGKILL,
        )

    def _end(self, child: int, sooner: int | None = None) -> int:
        """Wait for the end of the child, or until ``sooner`` can be read, or kill it; return the status of waitpid."""
        in_time = False
        try:
            in_time = ends(child, self._patience, sooner)
        finally:  # also after ^C and SIGTERM
            if not in_time:
                os.kill(child, signal.SIGKILL)
            if self._task.checked and (sooner is None or not in_time):
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(child, signal.SIGKILL)  # before the child is reaped: until then the number is its own
        return os.waitpid(child, 0)[1]

    def _why(self, status: int, refusal: int | None) -> str:
        """Return the reason why the program does not run; empty if it runs."""
        if refusal == errno.ENOENT and self._task.root is not None:
            return _NOT_IN_CHROOT if self._task.path == f"/{NAME}" else _NOT_IN_TREE
        if refusal is not None and self._task.names_interpreter:
            return os.strerror(refusal)
        if refusal is not None:
            return _MEANINGS.get(refusal) or os.strerror(refusal)
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            late = (  # as in kernel/progress.py
                f" (as is any program that makes no progress for {self._patience:.0f} s, or runs longer than 60 s)"
                if number == signal.SIGKILL
                else ""
            )
            return f"it was killed by signal {number}, {signal.strsignal(number)}{late}"
        code = os.WEXITSTATUS(status)
        return "" if code == self._task.status else f"its exit status is {code}, should be {self._task.status}"

    def _be(self, writing: int, parent: int, output: int | None = None) -> None:
        """Become the program, in the child process; if that fails, write the reason to the pipe ``writing``.

        ``output`` is where the program's stdout goes.
        """
        from binfmtd.host import syscalls

        task, answer = self._task, b"0"
        try:
            nowhere = os.open(os.devnull, os.O_RDWR)
            for descriptor in range(3):
                os.dup2(nowhere, descriptor)
            if output is not None:
                os.dup2(output, 1)
                os.setpgid(0, 0)
            # No core dump of a program that fails: 1 also prevents piped ones (do_coredump, fs/coredump.c).  If the
            # hard limit is 0, raising it takes CAP_SYS_RESOURCE, and Python raises ValueError.
            with suppress(ValueError):
                resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
            if task.root is not None:
                answer = CHROOT
                _change_root(task.root)
            answer = b"0"
            # Before getppid: an orphan's tracer would be process 1, which never lets it continue.
            syscalls.signal_when_parent_dies(signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)
            if self._traced:
                answer = TRACE
                syscalls.stop_at_exec()
            answer = b"0"
            os.execve(task.path, task.words, task.environment)  # noqa: S606  the probe itself
        except OSError as error:
            if answer == b"0":
                answer = str(error.errno).encode()
        except BaseException:  # noqa: BLE001  no error may look like a result of the program
            answer = _BROKEN
        finally:
            os.write(writing, answer)
            os._exit(1)


def _written_to(pipe: int) -> str:
    """Return what is in a pipe now, 64 KiB at most, without waiting."""
    try:
        return os.read(pipe, _PIPE_BYTES).decode("ascii", "backslashreplace")
    except BlockingIOError:  # empty, and a process has it open for writing
        return ""


def _change_root(directory: str) -> None:
    from binfmtd.host import syscalls

    try:
        os.chroot(directory)
    except PermissionError:
        syscalls.unshare(syscalls.CLONE_NEWUSER)
        os.chroot(directory)
    os.chdir("/")


def _is(running: str, path: str) -> bool | None:
    """Return True if two paths lead to the same file, or to files of the same content; None if one cannot be read.

    A file of a container image has another device or inode number in each container.
    """
    with suppress(OSError):
        if os.path.samestat(one := os.stat(running), other := os.stat(path)):
            return True
        if one.st_size != other.st_size:
            return False
        with open(running, "rb", buffering=0) as a, open(path, "rb", buffering=0) as b:
            while block := a.read(_BLOCK):
                if block != b.read(_BLOCK):
                    return False
        return True
    return None
