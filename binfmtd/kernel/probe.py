"""Whether a program runs, how, and by whose doing: found by running it.

The program lies alone in a directory, its process's root: an emulator that runs it there was opened by the kernel
beforehand (flag F), as it would have to be in anybody's container.  The process is stopped in its execve
(PTRACE_TRACEME), when /proc/PID/exe already says which file runs: the program itself, or an emulator.

* chroot(2) needs CAP_SYS_CHROOT.  Whoever lacks it has it in a user namespace of his own, and no mount is made there,
  so the same binfmt_misc answers.  Where that is forbidden as well the program runs in our own root, and the result
  says so (``in_chroot``): then a handler without F is found working, too.
* Where ptrace is forbidden nobody knows who ran the program: ``natively`` and ``as_expected`` are None.
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
from binfmtd.kernel.progress import ends

EXIT_STATUS = 42
PATIENCE = 10.0  # seconds in which a program does nothing; an emulator starts in some 20 ms
_NAME = "program"
_BLOCK = 1 << 20
_CHROOT, _TRACE = b"C", b"T"  # what a child says if it may not do this
_BROKEN = b"B"  # ... and if something else went wrong before the program could start
_NOT_IN_CHROOT = "its interpreter is not to be had there: its entry has no flag F, or the emulator is not static"
_MEANINGS = {
    errno.ENOEXEC: "no entry takes it, and the host does not run it natively",
    errno.ENOENT: "its interpreter is missing, or what that needs to run",
    errno.ELOOP: "its entry takes its own interpreter, too",
}


class Attempt(NamedTuple):
    """What became of one program.

    ``reason`` says why it does not run, and is empty if it does.  ``as_expected`` is whether the file that ran it is
    the expected interpreter, by content.  ``duration`` is in seconds, from the fork to the end; ``errno`` is execve's.
    """

    name: str
    runs: bool
    natively: bool | None
    in_chroot: bool
    reason: str
    duration: float
    as_expected: bool | None = None
    errno: int | None = None


def refuse_without_code_memory() -> None:
    """Raise ProbeError where no memory may be both writable and executable.

    Emulators write their code, so there all would seem broken: systemd's MemoryDenyWriteExecute, PR_SET_MDWE (prctl(2))
    and SELinux's execmem forbid it, and children inherit that.
    """
    try:
        mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()
    except OSError as error:
        raise ProbeError(
            f"memory that is writable and executable is forbidden here ({error.strerror}), and no emulator runs "
            "without: under systemd, have binfmtd-probe.service probe (systemctl enable --now binfmtd-probe.path)"
        ) from None


class Prober:
    """Runs programs, one after the other, in a directory that is there from the first one to ``close``."""

    def __init__(self, *, in_chroot: bool = True, patience: float = PATIENCE) -> None:
        """``in_chroot=False``: in our own root, where a handler without F is found working, too.

        A program that does nothing for ``patience`` seconds, or works for several times as long, is killed.
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
        """Leave nothing behind."""
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def __call__(self, name: str, program: bytes, expected: str | None = None) -> Attempt:
        """Run a program that exits with 42; ``expected`` is the path of the interpreter that should run it.

        Raises ProbeError where programs cannot be tried at all.
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
            attempt = _Attempt(path, self._patience, in_chroot=self._in_chroot, traced=self._traced)
            probed = attempt.run(name, expected)
            if attempt.forbidden == _CHROOT:
                self._in_chroot = False
            elif attempt.forbidden == _TRACE:
                self._traced = False
            else:
                return probed


def _make_directory() -> str:
    places = ["/tmp", "/var/tmp", "/run", "/dev/shm"]  # noqa: S108  mkdtemp
    with suppress(FileNotFoundError):  # it raises where none of its own places can be written to
        places.insert(0, tempfile.gettempdir())
    for above in dict.fromkeys(places):
        try:
            if not os.statvfs(above).f_flag & os.ST_NOEXEC:
                return _with_room(tempfile.mkdtemp(prefix="binfmtd-probe-", dir=above))
        except OSError:
            continue
    raise ProbeError("there is no directory for programs to try: name one in TMPDIR, writable and not mounted noexec")


def _with_room(directory: str) -> str:
    """The directory, if a file can be written there; raises OSError and leaves nothing if not."""
    try:
        with open(os.path.join(directory, _NAME), "wb") as file:
            file.write(bytes(4096))
    except OSError:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    return directory


class _Attempt:
    """One process."""

    def __init__(self, path: str, patience: float, *, in_chroot: bool, traced: bool) -> None:
        self._path = path
        self._patience = patience
        self._in_chroot = in_chroot
        self._traced = traced
        self.forbidden = b""  # what it was not allowed to do, and did not get beyond

    def run(self, name: str, expected: str | None) -> Attempt:
        natively = as_expected = None
        began = time.monotonic()
        from binfmtd.kernel import syscalls

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
                said = file.read()
        finally:
            os.close(reading)
        if said == _BROKEN:
            raise ProbeError("programs cannot be tried here: the process that should have become one has failed")
        if said in (_CHROOT, _TRACE):
            self.forbidden = said
        refusal = int(said) if said.isdigit() else None
        reason = self._why(status, refusal)
        duration = time.monotonic() - began
        return Attempt(name, not reason, natively, self._in_chroot, reason, duration, as_expected, refusal)

    def _end(self, child: int) -> int:
        """Wait for its end, or make one; the status as of waitpid."""
        if not ends(child, self._patience):
            os.kill(child, signal.SIGKILL)
        return os.waitpid(child, 0)[1]

    def _why(self, status: int, refusal: int | None) -> str:
        """Why it does not run; empty if it does."""
        if refusal == errno.ENOENT and self._in_chroot:
            return _NOT_IN_CHROOT
        if refusal is not None:
            return _MEANINGS.get(refusal) or os.strerror(refusal)
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            late = f" (what does not end within {self._patience:.0f} s is)" if number == signal.SIGKILL else ""
            return f"it was killed by signal {number}, {signal.strsignal(number)}{late}"
        code = os.WEXITSTATUS(status)
        return "" if code == EXIT_STATUS else f"its exit status is {code}, should be {EXIT_STATUS}"

    def _be(self, writing: int, parent: int) -> None:
        """The child: become the program, or say why not."""
        from binfmtd.kernel import syscalls

        said = b"0"
        try:
            nowhere = os.open(os.devnull, os.O_RDWR)
            for descriptor in range(3):
                os.dup2(nowhere, descriptor)
            # No core dump of who fails: 1 keeps also those from being made that are piped (do_coredump, fs/coredump.c).
            # Not where the hard limit is 0: to raise that takes CAP_SYS_RESOURCE, and Python says so by ValueError.
            with suppress(ValueError):
                resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
            if self._in_chroot:
                said = _CHROOT
                _change_root(os.path.dirname(self._path))
            said = b"0"
            # Before the question whose child this is: an orphan's tracer would be process 1, which never lets it go on.
            syscalls.signal_when_parent_dies(signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)
            if self._traced:
                said = _TRACE
                syscalls.stop_at_exec()
            said = b"0"
            os.execve(f"/{_NAME}" if self._in_chroot else self._path, [_NAME], {})  # noqa: S606  that is the question
        except OSError as error:
            if said == b"0":
                said = str(error.errno).encode()
        except BaseException:  # noqa: BLE001  whatever it is, it must not look like an answer
            said = _BROKEN
        finally:
            os.write(writing, said)
            os._exit(1)


def _change_root(directory: str) -> None:
    from binfmtd.kernel import syscalls

    try:
        os.chroot(directory)
    except PermissionError:
        syscalls.unshare(syscalls.CLONE_NEWUSER)
        os.chroot(directory)
    os.chdir("/")


def _is(running: str, path: str) -> bool | None:
    """Whether two paths lead to the same file, or to files of the same content; None if one cannot be read.

    The same file of an image shows under other numbers in each container.
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
