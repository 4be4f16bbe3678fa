"""Probes: whether a program runs, how, and which file runs it, found by running it.

The program is the only file in a directory that is the root of its process.  So an emulator that runs it there was
opened by the kernel beforehand (flag F), as it would have to be in a container.  The process stops in its execve
(PTRACE_TRACEME).  /proc/PID/exe then is the file that runs: the program itself, or an emulator.

* chroot(2) needs CAP_SYS_CHROOT.  A process without it gets it by entering a new user namespace.  No mount is made
  there, so the same binfmt_misc serves.
* If that is forbidden, too, the program runs in our own root, where a handler without F also passes.  The result
  records this (``in_chroot``).
* If ptrace is forbidden, the file that runs the program is unknown: ``natively`` and ``as_expected`` are None.

The programs of deep checks (host/deep_programs) run the same way, with arguments.  What they write to stdout
is collected, and processes that they leave are killed.
"""

import errno
import mmap
import os
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import NamedTuple, Self

from binfmtd.errors import ProbeError
from binfmtd.host.progress import ends

EXIT_STATUS = 42
PATIENCE = 10.0  # seconds without progress, after which a program is killed; an emulator starts in some 20 ms
_NAME = "program"
_BLOCK = 1 << 20
_PIPE_BYTES = 1 << 16  # the size of a pipe (pipe(7))
_CHROOT, _TRACE = b"C", b"T"  # the child writes this if the step is forbidden
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


class _Task(NamedTuple):
    """A program to run, and the way to do it.

    ``file`` is its path as we see it, and ``path`` the one that is executed, in the root directory ``root`` (None: in
    our own).  ``words`` are its argv, ``status`` is the exit status that it should have.  If it is ``checked``, its
    output is collected, and processes that it leaves are killed.
    """

    file: str
    path: str
    root: str | None
    words: tuple[str, ...] = (_NAME,)
    environment: Mapping[str, str] = MappingProxyType({})
    status: int = EXIT_STATUS
    checked: bool = False

    @property
    def names_interpreter(self) -> bool:
        """True if an interpreter is executed by its own path, so that the kernel chooses no entry."""
        return self.root is None and self.path != self.file


class NoChrootError(ProbeError):
    """A root directory that this process may not change to."""


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

    def __exit__(self, *_: object) -> None:
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
        path = self._install(program)
        if through is not None:
            # Twice: an interpreter that expects flag P takes the second for the program's argv[0].
            probed = self._run(name, _Task(path, through, None, (through, path, path)), expected)
        else:
            probed = self._run_alone(name, lambda root, executed: _Task(path, executed, root), expected)
        return probed

    def check(self, name: str, program: bytes, check: str) -> Attempt:
        """Run a program that exits with 42 if it passes the check of this name, its last argument.

        Unlike the tiny program it gets its path, an empty argument and the name, and BINFMTD=deep in its environment.
        Raises ProbeError if no program can be tried here.
        """
        path = self._install(program)

        def task(root: str | None, executed: str) -> _Task:
            return _Task(path, executed, root, (executed, "", check), {"BINFMTD": "deep"}, checked=True)

        return self._run_alone(name, task)

    def in_tree(self, name: str, root: str, words: tuple[str, ...], file: str) -> Attempt:
        """Run a program of a root tree in it; it should exit with 0.  ``words`` are its argv, and begin with its path.

        ``file`` is the program's path as we see it.
        Raises ProbeError if no program can be tried here; NoChrootError if this process may not change its root
        directory.
        """
        return self._run(name, _Task(file, words[0], root, words, {"PATH": "/usr/bin:/bin"}, 0, checked=True))

    def _install(self, program: bytes) -> str:
        """Write the program into the directory and return its path.  Raises ProbeError."""
        self._directory = self._directory or _make_directory()
        path = os.path.join(self._directory, _NAME)
        try:
            with suppress(FileNotFoundError):
                os.unlink(path)  # a process of the last program that still ends would forbid the write (ETXTBSY)
            with open(path, "wb") as file:
                os.fchmod(file.fileno(), 0o700)
                file.write(program)
        except OSError as error:
            from binfmtd.files.cure import cure

            raise ProbeError(f"{path}: {error.strerror}: {cure(error)}, or name another directory in TMPDIR") from None
        return path

    def _run_alone(self, name: str, task: Callable[[str | None, str], _Task], expected: str | None = None) -> Attempt:
        """Run the installed program in the directory as its root; if that is forbidden, in our own root.

        ``task`` is called with the root directory and the program's path in it.
        """
        path = os.path.join(self._directory or "", _NAME)
        if self._in_chroot:
            with suppress(NoChrootError):
                return self._run(name, task(self._directory, f"/{_NAME}"), expected)
            self._in_chroot = False
        return self._run(name, task(None, path), expected)

    def _run(self, name: str, task: _Task, expected: str | None = None) -> Attempt:
        """Run it; if ptrace is forbidden, without, also from then on."""
        process = _Process(task, self._patience, traced=self._traced)
        probed = process.run(name, expected)
        if process.forbidden == _CHROOT:
            raise NoChrootError(f"{task.root}: this process may not make it its root directory: run this as root")
        if process.forbidden == _TRACE:
            self._traced = False
            return self._run(name, task, expected)
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


class _Process:
    """One process that is to become the program."""

    def __init__(self, task: _Task, patience: float, *, traced: bool) -> None:
        self._task = task
        self._patience = patience
        self._traced = traced
        self.forbidden = b""  # the step that the kernel forbade, _CHROOT or _TRACE

    def run(self, name: str, expected: str | None) -> Attempt:
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
        if answer in (_CHROOT, _TRACE):
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
            return _NOT_IN_CHROOT if self._task.path == f"/{_NAME}" else _NOT_IN_TREE
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
                answer = _CHROOT
                _change_root(task.root)
            answer = b"0"
            # Before getppid: an orphan's tracer would be process 1, which never lets it continue.
            syscalls.signal_when_parent_dies(signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)
            if self._traced:
                answer = _TRACE
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
