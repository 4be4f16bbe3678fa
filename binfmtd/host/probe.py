"""Probes: whether a program runs, how, and which file runs it, found by running it.

The program is the only file in a directory that is the root of its process.  So an emulator that runs it there was
opened by the kernel beforehand (flag F), as it would have to be in a container.

* chroot(2) needs CAP_SYS_CHROOT.  A process without it gets it by entering a new user namespace.  No mount is made
  there, so the same binfmt_misc serves.
* If that is forbidden, too, the program runs in our own root, where a handler without F also passes.  The result
  records this (``in_chroot``).
* If ptrace is forbidden, the file that runs the program is unknown: ``natively`` and ``as_expected`` are None.

The programs of deep checks (host/deep_programs) run the same way, with arguments.  What they write to stdout
is collected, and processes that they leave are killed.
"""

import mmap
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from binfmtd.errors import ProbeError
from binfmtd.host.probe_process import CHROOT, NAME, TRACE, Attempt, ProbeProcess, Task

PATIENCE = 10.0  # seconds without progress, after which a program is killed; an emulator starts in some 20 ms


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
            probed = self._run(name, Task(path, through, None, (through, path, path)), expected)
        else:
            probed = self._run_alone(name, lambda root, executed: Task(path, executed, root), expected)
        return probed

    def check(self, name: str, program: bytes, check: str) -> Attempt:
        """Run a program that exits with 42 if it passes the check of this name, its last argument.

        Unlike the tiny program it gets its path, an empty argument and the name, and BINFMTD=deep in its environment.
        Raises ProbeError if no program can be tried here.
        """
        path = self._install(program)

        def task(root: str | None, executed: str) -> Task:
            return Task(path, executed, root, (executed, "", check), {"BINFMTD": "deep"}, checked=True)

        return self._run_alone(name, task)

    def in_tree(self, name: str, root: str, words: tuple[str, ...], file: str) -> Attempt:
        """Run a program of a root tree in it; it should exit with 0.  ``words`` are its argv, and begin with its path.

        ``file`` is the program's path as we see it.
        Raises ProbeError if no program can be tried here; NoChrootError if this process may not change its root
        directory.
        """
        return self._run(name, Task(file, words[0], root, words, {"PATH": "/usr/bin:/bin"}, 0, checked=True))

    def _install(self, program: bytes) -> str:
        """Write the program into the directory and return its path.  Raises ProbeError."""
        self._directory = self._directory or _make_directory()
        path = os.path.join(self._directory, NAME)
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

    def _run_alone(self, name: str, task: Callable[[str | None, str], Task], expected: str | None = None) -> Attempt:
        """Run the installed program in the directory as its root; if that is forbidden, in our own root.

        ``task`` is called with the root directory and the program's path in it.
        """
        path = os.path.join(self._directory or "", NAME)
        if self._in_chroot:
            with suppress(NoChrootError):
                return self._run(name, task(self._directory, f"/{NAME}"), expected)
            self._in_chroot = False
        return self._run(name, task(None, path), expected)

    def _run(self, name: str, task: Task, expected: str | None = None) -> Attempt:
        """Run it; if ptrace is forbidden, without, also from then on."""
        process = ProbeProcess(task, self._patience, traced=self._traced)
        probed = process.run(name, expected)
        if process.forbidden == CHROOT:
            raise NoChrootError(f"{task.root}: this process may not make it its root directory: run this as root")
        if process.forbidden == TRACE:
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
        with open(os.path.join(directory, NAME), "wb") as file:
            file.write(bytes(4096))
    except OSError:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    return directory
