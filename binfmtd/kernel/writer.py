"""The only writer of binfmt_misc.

Files are opened without O_TRUNC, which would raise an event before anything has changed.  Each write is kept as a
``Wrote`` value until the caller takes it: from these the watcher separates our own events from those of other programs.
"""

import errno
import os
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from binfmtd.errors import Again, WriteRefusedError
from binfmtd.files.environment import in_user_namespace
from binfmtd.host.bounded import BoundedCalls
from binfmtd.kernel.instance import Instance
from binfmtd.kernel.mount import Mounted, is_sealed, open_place
from binfmtd.kernel.seal import Seal, how_to_open
from binfmtd.model.handler import Registration

ENABLE = b"1"
DISABLE = b"0"
REMOVE = b"-1"
_OPEN = os.O_WRONLY | os.O_CLOEXEC
_MOST_BUFFERS = 1024  # of one writev(2) (IOV_MAX in linux/uio.h)


class Wrote(NamedTuple):
    """One file that was opened for writing and closed again; it determines which events that raises."""

    file: str
    writes: int  # those that the kernel accepted: each raises one MODIFY at most
    removed: bool = False


class Writer:
    """The writer of one instance."""

    def __init__(
        self, instance: Instance | Mounted, opens: BoundedCalls | None = None, seal: Seal | None = None
    ) -> None:
        """Write through an opened instance, or by path, which is faster for a single file.

        With ``opens``, a registration fails with ETIMEDOUT if the interpreter's file system does not answer.
        A thread stays blocked in that write, and the kernel registers the entry when the file system answers again.
        A sealed instance is written to through its ``seal``.
        """
        self._opens = opens
        self._seal = seal
        self._directory = instance.descriptor if isinstance(instance, Instance) else None
        self._mounted = instance.mounted if isinstance(instance, Instance) else instance
        self._wrote: list[Wrote] = []

    def take_wrote(self) -> list[Wrote]:
        """Return what was written since the last call."""
        wrote, self._wrote = self._wrote, []
        return wrote

    def register(
        self, lines: Iterable[bytes], opening: Mapping[int, str] = MappingProxyType({})
    ) -> list[OSError | None]:
        """Write registration lines back to back on one descriptor; return the error of each, None for an accepted one.

        The first line is written alone, before the others are produced: a program may be waiting for this entry.
        ``opening``: the index of a line -> the interpreter that the kernel opens on a file system that may not answer.
        Raises WriteRefusedError if ``register`` cannot be opened; FileNotFoundError if the path leads elsewhere.
        """
        outcome: list[OSError | None] = []
        descriptor = self._open("register")
        try:
            made = iter(lines)
            for place, line in enumerate(made):
                outcome.append(self._write_bounded(descriptor, line, opening.get(place)))
                if not opening:  # the rest takes one system call
                    outcome += _write_all(descriptor, list(made))
        finally:
            self._close(descriptor)
            here = (error for place, error in enumerate(outcome) if place not in opening)
            self._wrote.append(Wrote("register", sum(error is None for error in here)))
        return outcome

    def control(self, name: str, command: bytes) -> bool:
        """Enable, disable or remove an entry, or the instance through ``status``; False if there is no such entry.

        Raises WriteRefusedError.
        """
        try:
            descriptor = self._open(name)
        except FileNotFoundError:
            return False
        error = None
        try:
            error = _write(descriptor, command)
        finally:
            self._close(descriptor)
            self._wrote.append(Wrote(name, 0 if error else 1, removed=command == REMOVE))
        if error is not None:
            raise self._cannot_open(name, error)
        return True

    def _open(self, name: str) -> int:
        """Open the seal, if there is one, then a file for writing.

        Raises FileNotFoundError, also if the path leads to another file system, and WriteRefusedError.
        """
        if self._seal is not None:
            self._seal.begin_write()
        try:
            return self._open_file(name)
        except OSError as error:
            if self._seal is not None:
                self._seal.end_write()
            if isinstance(error, FileNotFoundError):
                raise
            raise self._cannot_open(name, error) from None

    def _open_file(self, name: str) -> int:
        if self._directory is not None:
            return os.open(name, _OPEN, dir_fd=self._directory)
        place = open_place(self._mounted)
        if place is not None:
            try:
                descriptor = os.open(name, _OPEN, dir_fd=place)
            finally:
                os.close(place)
            file, created = os.fstat(descriptor), self._mounted.created
            another = name == "register" and created not in (0, file.st_atime_ns)
            if not another and file.st_dev == self._mounted.device:
                return descriptor
            os.close(descriptor)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)

    def _close(self, descriptor: int) -> None:
        os.close(descriptor)
        if self._seal is not None:
            self._seal.end_write()

    def _write_bounded(self, descriptor: int, line: bytes, interpreter: str | None) -> OSError | None:
        if interpreter is None or self._opens is None:
            return _write(descriptor, line)
        late: OSError | None = OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        if self._opens.hangs(interpreter):
            return late
        try:
            # Opened anew: all writes through one open file, also by a duplicate of its descriptor, wait for each other
            # (fdget_pos in fs/file.c), so a later line would hang as well.
            own = self._open_file("register")
        except OSError as error:  # no descriptor is left
            return error

        def write() -> OSError | None:
            try:
                return _write(own, line)
            finally:
                os.close(own)

        refused = self._opens.call(interpreter, write, late, dropped=lambda: os.close(own))
        if refused is not late:
            self._wrote.append(Wrote("register", 0 if refused else 1))
        return refused

    def _cannot_open(self, name: str, error: OSError) -> WriteRefusedError:
        number, where = error.errno or 0, self._mounted.directory
        remedy = {
            errno.EROFS: "it is mounted read-only: remount it with `mount -o remount,bind,rw`, or bind it writable",
            errno.EPERM: "do this as root of the user namespace that owns this instance",
            errno.EMFILE: "raise this process's limit of open files (systemd: LimitNOFILE=)",
            errno.ENFILE: "raise fs.file-max with sysctl",
        }.get(number, "see dmesg")
        if number == errno.EACCES:
            remedy = _denied(self._mounted)
        if number == errno.EROFS and is_sealed(self._mounted):
            return WriteRefusedError(f"{where}/{name}: {how_to_open(where)}", number, Again.LATER)
        # LATER also for EROFS: if the host remounts the superblock, only its own mount namespace gets an event.
        return WriteRefusedError(f"{where}/{name}: {error.strerror}: {remedy}", number, Again.LATER)


def _denied(mounted: Mounted) -> str:
    from binfmtd.formats.apparmor import confines
    from binfmtd.host.security_modules import label_of_process
    from binfmtd.kernel.mount_layers import Owner, owner_of

    if os.geteuid() == 0 and in_user_namespace() and owner_of(mounted) is Owner.OUTSIDE:
        return (
            "this instance belongs to an outer user namespace, and only root of that one may write to it: run binfmtd "
            "there (its handlers serve here as well), or mount a separate instance with --own-instance"
        )
    if os.geteuid() == 0 and confines(label := label_of_process()):
        return f"a security module confines this process as {label} and forbids it: see dmesg"
    return "run as root, or with CAP_DAC_OVERRIDE"


def _write(descriptor: int, line: bytes) -> OSError | None:
    try:
        os.write(descriptor, line)
    except OSError as error:
        return error
    return None


def _write_all(descriptor: int, lines: list[bytes]) -> list[OSError | None]:
    """Write lines, with one system call as long as the kernel refuses none; return the error of each.

    The kernel takes each buffer of writev(2) as a separate write, and returns at the first that it refuses
    (fs/read_write.c, do_loop_readv_writev; tests/kernel/test_facts.py).  After a refusal one line is written alone.  So
    its error is certainly its own, even if a kernel took all buffers as one write.
    """
    outcome: list[OSError | None] = []
    together = _MOST_BUFFERS
    while len(outcome) < len(lines):
        batch = lines[len(outcome) : len(outcome) + together]
        try:
            taken = os.writev(descriptor, batch)
        except OSError as error:
            if len(batch) == 1:
                outcome.append(error)
            together = 1
            continue
        together = _MOST_BUFFERS
        while taken > 0:
            taken -= len(lines[len(outcome)])
            outcome.append(None)
    return outcome


def _unreachable(interpreter: str) -> tuple[str, Again]:
    return f"{interpreter} cannot be read: its file system has failed: mount it again", Again.LATER


def refusal(registration: Registration, error: OSError) -> WriteRefusedError:
    """Return the error for a registration that the kernel refused: its meaning and the remedy.

    Source: fs/binfmt_misc.c, bm_register_write.  The causes of most refusals may end without an event: a security
    module allows it, or a file system answers again.
    """
    interpreter, flags = registration.interpreter, registration.flags.letters
    meaning, again = {
        errno.EEXIST: ("another program has registered an entry of that name", Again.NOW),
        errno.ENOENT: (f"flag F opens {interpreter} now, and it does not exist: install it", Again.RELOAD),
        errno.EACCES: (f"{interpreter} may not be executed: check its mode, and if it is mounted noexec", Again.LATER),
        errno.ETXTBSY: (
            f"{interpreter} is open for writing in another process: it can be used when that process has closed it",
            Again.LATER,
        ),
        errno.ELOOP: (f"{interpreter} is a link that leads to itself: correct the link", Again.RELOAD),
        errno.EINVAL: (f"this kernel rejects the match or one of the flags ({flags or 'none'})", Again.RELOAD),
        **dict.fromkeys((errno.ENOTCONN, errno.ESTALE, errno.EIO, errno.EHOSTDOWN), _unreachable(interpreter)),
        errno.ETIMEDOUT: (f"{interpreter} cannot be opened: its file system does not answer", Again.NOW),
        errno.EROFS: ("binfmt_misc is mounted read-only: remount it writable", Again.LATER),
        errno.EPERM: ("not allowed in this user namespace: do this as root", Again.LATER),
        errno.ENOMEM: ("the kernel is out of memory", Again.LATER),
        errno.ENOSPC: ("the kernel is out of memory", Again.LATER),
    }.get(error.errno or 0, ("see dmesg", Again.LATER))
    number = error.errno or 0
    word = errno.errorcode.get(number, str(number))
    return WriteRefusedError(f"the kernel refused it with {word}: {meaning}", number, again)
