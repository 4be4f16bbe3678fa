"""Probes: whether a program runs, how, and which file runs it, found by running it.

The program is the only file in a directory that is the root of its process.  So an emulator that runs it there was
opened by the kernel beforehand (flag F), as it would have to be in a container.  The process stops in its execve
(PTRACE_TRACEME).  /proc/PID/exe then is the file that runs: the program itself, or an emulator.

* chroot(2) needs CAP_SYS_CHROOT.  A process without it gets it by entering a new user namespace.  No mount is made
  there, so the same binfmt_misc serves.
* If that is forbidden, too, the program runs in our own root, where a handler without F also passes.  The result
  records this (``in_chroot``).
* If ptrace is forbidden, the file that runs the program is unknown: ``natively`` and ``as_expected`` are None.
"""

import errno
import mmap
import os
import resource
import shutil
import signal
import tempfile
import time
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple, Self

from binfmtd.errors import ProbeError
from binfmtd.host.progress import ends

EXIT_STATUS = 42
PATIENCE = 10.0  # seconds without progress, after which a program is killed; an emulator starts in some 20 ms
_NAME = "program"
_BLOCK = 1 << 20
_CHROOT, _TRACE = b"C", b"T"  # the child writes this if the step is forbidden
_BROKEN = b"B"  # ... and this if another error prevents the start of the program
_NOT_IN_CHROOT = (
    "its interpreter does not exist in an empty root directory: its entry lacks flag F, or the emulator is "
    "dynamically linked"
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
    the program, or its emulator, was killed by a signal other than SIGKILL, which ends programs that hang.
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


def refuse_without_code_memory() -> None:
    """Raise ProbeError if no memory may be both writable and executable.

    Emulators generate code at run time, so all of them would seem broken.  systemd's MemoryDenyWriteExecute,
    PR_SET_MDWE (prctl(2)) and SELinux's execmem forbid such memory, and child processes inherit that.
    """
    try:
        mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()
    except OSError as error:
        from binfmtd.formats.selinux import is_context
        from binfmtd.host.security_modules import label_of_process

        why = f"memory that is writable and executable is forbidden here ({error.strerror}), and emulators need it"
        if is_context(label := label_of_process()):
            raise ProbeError(
                f"{why}: SELinux forbids it in the domain {label}, unless MemoryDenyWriteExecute= does: allow execmem, "
                "in Debian's policy with `setsebool -P allow_execmem on`"
            ) from None
        raise ProbeError(
            f"{why}: under systemd, let binfmtd-probe.service run the probe (systemctl enable --now binfmtd-probe.path)"
        ) from None


class Prober:
    """A runner of programs, one after the other, in a directory that exists from the first program to ``close``."""

    def __init__(self, *, in_chroot: bool = True, patience: float = PATIENCE) -> None:
        """Run programs in a root directory that contains nothing else; with ``in_chroot=False``, in our own.

        In our own root a handler without F also passes.  A program that makes no progress for ``patience`` seconds, or
        works for several times as long, is killed.
        """
        self._directory: str | None = None
        self._in_chroot = in_chroot
        self._patience = patience
        self._traced = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the directory in which the programs run."""
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def __call__(
        self, name: str, program: bytes, expected: str | None = None, *, through: str | None = None
    ) -> Attempt:
        """Run a program that exits with 42; ``expected`` is the path of the interpreter that should run it.

        With ``through``, execute that interpreter with the program's path as its arguments, in our own root: the kernel
        chooses no entry then.
        Raises ProbeError if no program can be tried here.
        """
        self._directory = self._directory or _make_directory()
        path = os.path.join(self._directory, _NAME)
        try:
            with open(path, "wb") as file:
                os.fchmod(file.fileno(), 0o700)
                file.write(program)
        except OSError as error:
            from binfmtd.files.cure import cure

            raise ProbeError(f"{path}: {error.strerror}: {cure(error)}, or name another directory in TMPDIR") from None
        while True:
            in_chroot = self._in_chroot and through is None
            attempt = _Attempt(path, self._patience, in_chroot=in_chroot, traced=self._traced, through=through)
            probed = attempt.run(name, expected)
            if attempt.forbidden == _CHROOT:
                self._in_chroot = False
            elif attempt.forbidden == _TRACE:
                self._traced = False
            else:
                return probed


def _make_directory() -> str:
    places = ["/tmp", "/var/tmp", "/run", "/dev/shm"]  # noqa: S108  mkdtemp
    with suppress(FileNotFoundError):  # raised if no directory that it tries is writable
        places.insert(0, tempfile.gettempdir())
    for above in dict.fromkeys(places):
        try:
            if not os.statvfs(above).f_flag & os.ST_NOEXEC:
                return _with_room(tempfile.mkdtemp(prefix="binfmtd-probe-", dir=above))
        except OSError:
            continue
    raise ProbeError(
        "no directory is usable for the test programs: name one in TMPDIR that is writable, has room and is not "
        "mounted noexec"
    )


def _with_room(directory: str) -> str:
    """Return the directory if a file can be written in it; otherwise remove it and raise OSError."""
    try:
        with open(os.path.join(directory, _NAME), "wb") as file:
            file.write(bytes(4096))
    except OSError:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    return directory


class _Attempt:
    """One process that is to become the program."""

    def __init__(self, path: str, patience: float, *, in_chroot: bool, traced: bool, through: str | None) -> None:
        self._path = path
        self._through = through
        self._patience = patience
        self._in_chroot = in_chroot
        self._traced = traced
        self.forbidden = b""  # the step that the kernel forbade, _CHROOT or _TRACE

    def run(self, name: str, expected: str | None) -> Attempt:
        natively = as_expected = None
        began = time.monotonic()
        from binfmtd.host import syscalls

        reading, writing = os.pipe2(os.O_CLOEXEC)
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            self._be(writing, parent)
        os.close(writing)
        try:
            status = os.waitpid(child, 0)[1] if self._traced else self._end(child)
            if os.WIFSTOPPED(status):
                running = f"/proc/{child}/exe"
                natively = _is(running, self._path)
                as_expected = _is(running, expected) if expected else None
                syscalls.go_on(child)
                status = self._end(child)
            with open(reading, "rb", closefd=False) as file:
                answer = file.read()
        finally:
            os.close(reading)
        if answer == _BROKEN:
            raise ProbeError("no program can be tried here: the child process failed before it could start one")
        if answer in (_CHROOT, _TRACE):
            self.forbidden = answer
        refusal = int(answer) if answer.isdigit() else None
        reason = self._why(status, refusal)
        duration = time.monotonic() - began
        crashed = refusal is None and os.WIFSIGNALED(status) and os.WTERMSIG(status) != signal.SIGKILL
        return Attempt(name, not reason, natively, self._in_chroot, reason, duration, as_expected, refusal, crashed)

    def _end(self, child: int) -> int:
        """Wait for the end of the child, or kill it; return the status of waitpid."""
        if not ends(child, self._patience):
            os.kill(child, signal.SIGKILL)
        return os.waitpid(child, 0)[1]

    def _why(self, status: int, refusal: int | None) -> str:
        """Return the reason why the program does not run; empty if it runs."""
        if refusal == errno.ENOENT and self._in_chroot:
            return _NOT_IN_CHROOT
        if refusal is not None and self._through is not None:
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
        return "" if code == EXIT_STATUS else f"its exit status is {code}, should be {EXIT_STATUS}"

    def _be(self, writing: int, parent: int) -> None:
        """Become the program, in the child process; if that fails, write the reason to the pipe ``writing``."""
        from binfmtd.host import syscalls

        answer = b"0"
        try:
            nowhere = os.open(os.devnull, os.O_RDWR)
            for descriptor in range(3):
                os.dup2(nowhere, descriptor)
            # No core dump of a program that fails: 1 also prevents piped ones (do_coredump, fs/coredump.c).  If the
            # hard limit is 0, raising it takes CAP_SYS_RESOURCE, and Python raises ValueError.
            with suppress(ValueError):
                resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
            if self._in_chroot:
                answer = _CHROOT
                _change_root(os.path.dirname(self._path))
            answer = b"0"
            # Before getppid: an orphan's tracer would be process 1, which never lets it continue.
            syscalls.signal_when_parent_dies(signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)
            if self._traced:
                answer = _TRACE
                syscalls.stop_at_exec()
            answer = b"0"
            if self._through is not None:
                # Twice: an interpreter that expects flag P takes the second for the program's argv[0].
                os.execve(self._through, [self._through, self._path, self._path], {})  # noqa: S606  the probe itself
            os.execve(f"/{_NAME}" if self._in_chroot else self._path, [_NAME], {})  # noqa: S606  the probe itself
        except OSError as error:
            if answer == b"0":
                answer = str(error.errno).encode()
        except BaseException:  # noqa: BLE001  no error may look like a result of the program
            answer = _BROKEN
        finally:
            os.write(writing, answer)
            os._exit(1)


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
