"""Whole files, written so that a reader sees the old or the new, and read without blocking.

A write goes to a temporary file beside the target, which is then renamed over it.  A read accepts regular files only,
opens them with O_NONBLOCK and has a limit in bytes: a FIFO, a device or a huge file cannot hold us up.
"""

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO

from binfmtd.errors import FormatError

MEBIBYTE = 1 << 20
STATE_LIMIT = 64 * MEBIBYTE  # bytes of a file in the state directory, checked on writing and on reading


def write_atomically(path: str, data: bytes, mode: int = 0o644, *, durable: bool = False) -> None:
    """Replace the file at ``path`` by one that contains ``data``, in one step for every reader.

    Raises OSError, and then leaves no unfinished file.  Only a ``durable`` write is sure to survive a crash of the
    machine, at the price of an fsync.  The state directory does not need it: it is a tmpfs, and its contents mean
    nothing after a boot.
    """
    try:
        with _replacing(path, mode, durable=durable) as descriptor:
            write_all(descriptor, data)
    except OSError as error:
        error.filename = path
        raise


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of ``data``.  Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def write_state(path: str, data: bytes) -> None:
    """Write a file of the state directory as ``write_atomically`` does.

    Raises OSError, with EFBIG for more than STATE_LIMIT bytes, which ``read_state`` would refuse.
    """
    if len(data) > STATE_LIMIT:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
    write_atomically(path, data)


def read_state(path: str) -> bytes:
    """Read a file that ``write_state`` wrote.  Raises the errors of ``read_regular``."""
    return read_regular(path, STATE_LIMIT)


def copy_in_steps(source: str, target: str, finish: Callable[[int], None] | None = None) -> Iterator[None]:
    """Copy an executable, durably and in one step for every reader; yield after each mebibyte.

    The directories on the way are made.  A target that already has the same size and modification time is left as it
    is.  ``finish`` gets the copy's descriptor before the target is replaced.  Raises OSError.
    """
    with open(source, "rb", buffering=0) as file:
        source_status = os.fstat(file.fileno())
        with suppress(FileNotFoundError):
            there = os.stat(target)
            if (there.st_size, there.st_mtime_ns) == (source_status.st_size, source_status.st_mtime_ns):
                return
        make_directories(os.path.dirname(target))
        try:
            with _replacing(target, 0o755, durable=True) as descriptor:
                while os.sendfile(descriptor, file.fileno(), None, MEBIBYTE):
                    os.fdatasync(descriptor)  # after each step, so that the fsync at the end is short
                    yield
                os.utime(descriptor, ns=(source_status.st_mtime_ns, source_status.st_mtime_ns))
                if finish is not None:
                    finish(descriptor)
        except OSError as error:
            error.filename = target  # instead of a descriptor or the temporary file
            raise


def make_directories(path: str) -> None:
    """Make a directory and those above it, writable by their owner only, whatever the umask is.  Raises OSError."""
    before = os.umask(0o022)
    try:
        os.makedirs(path, exist_ok=True)
    except RecursionError:  # a path with a thousand missing parts
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path) from None
    finally:
        os.umask(before)


@contextmanager
def directories(path: str) -> Iterator[None]:
    """Make a directory and those above it, as ``make_directories`` does, durably.

    At the end remove those that did not exist before and are empty, also if anything is raised.  Raises OSError.
    """
    missing: list[str] = []
    above = path
    while not os.path.lexists(above) and above not in missing:
        missing.append(above)
        above = os.path.dirname(above)
    try:
        make_directories(path)
        for made in missing:
            sync_directory(os.path.dirname(made))
        yield
    finally:
        for made in missing:  # the deepest first
            with suppress(OSError):
                os.rmdir(made)


@contextmanager
def _replacing(path: str, mode: int, *, durable: bool) -> Iterator[int]:
    """Yield the descriptor of a temporary file beside ``path``, which replaces it at the end.

    If anything is raised, the temporary file is removed.
    """
    directory, name = os.path.split(path)
    beside = os.path.join(directory, f".{name}.{os.urandom(4).hex()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(beside, flags, 0o600)
    try:
        try:
            yield descriptor
            os.fchmod(descriptor, mode)  # the umask would reduce a mode that is given to open(2)
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(beside, path)
        if durable:
            sync_directory(directory)
    except BaseException:
        with suppress(OSError):
            os.unlink(beside)
        raise


def sync_directory(directory: str) -> None:
    """Sync a directory, so that a rename in it survives a crash, too.  Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_regular(path: str, limit: int = MEBIBYTE, *, judged: os.stat_result | None = None) -> bytes:
    """Read a whole file of at most ``limit`` bytes.

    ``judged`` is the stat result of the file that the caller has found trustworthy.  Raises FormatError, whose message
    gives the reason, for a file that is not regular, that is larger, or that is another one than ``judged``.  Raises
    OSError where it cannot be read.
    """
    data = read_start(path, limit + 1, judged=judged)
    if len(data) > limit:
        raise FormatError(f"{path!r} is larger than {limit} bytes: check that it is the right file")
    return data


def read_start(path: str, size: int, *, judged: os.stat_result | None = None) -> bytes:
    """Read the first ``size`` bytes of a file, or all of a shorter one.  Raises the errors of ``read_regular``."""
    with _open_regular(path) as file:
        if judged is not None and not os.path.samestat(os.fstat(file.fileno()), judged):
            raise FormatError(f"{path!r} was replaced while it was read: load it again")
        parts: list[bytes] = []
        while size and (part := file.read(size)):
            parts.append(part)
            size -= len(part)
    return b"".join(parts)


@contextmanager
def reading(path: str) -> Iterator[Callable[[int, int], bytes]]:
    """Open a file, and yield a function that reads it by offset and size, a mebibyte at most.

    The function returns no bytes where the file has none or cannot be read.  Raises OSError, and FormatError if it is
    not a regular file.
    """
    with _open_regular(path) as file:

        def read(offset: int, size: int) -> bytes:
            try:
                return os.pread(file.fileno(), min(size, MEBIBYTE), offset)
            except (OSError, OverflowError):  # a damaged file may name an offset beyond all files
                return b""

        yield read


@contextmanager
def _open_regular(path: str) -> Iterator[FileIO]:
    # Checked before the open, because opening some devices has an effect (a watchdog starts).
    _refuse_special(path, os.stat(path).st_mode)
    # Checked again after it: the file may have been replaced by a FIFO, which must not block us.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with open(descriptor, "rb", buffering=0) as file:
        _refuse_special(path, os.fstat(descriptor).st_mode)
        yield file


def remove_unfinished(directory: str) -> None:
    """Remove the temporary files of a killed ``write_atomically``; errors are ignored.

    The caller must be the only process that writes to this directory.
    """
    with suppress(OSError):
        for name in os.listdir(directory):
            if _UNFINISHED.fullmatch(name):
                os.unlink(os.path.join(directory, name))


_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{8}")
KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


def _refuse_special(path: str, mode: int) -> None:
    kind = stat.S_IFMT(mode)
    if kind != stat.S_IFREG:
        raise FormatError(f"{path!r} is {KINDS.get(kind, 'not a regular file')}: put a regular file there")
