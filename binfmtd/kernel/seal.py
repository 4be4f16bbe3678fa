"""Sealing an instance: its superblock is read-only, so no process can change, remove or register an entry.

* A read-only superblock refuses each write through each mount with EROFS, also for root.  Programs run as before.
* The daemon makes it writable for each of its own writes and read-only again: about 20 us.  That takes CAP_SYS_ADMIN in
  the user namespace that owns the instance, and Linux 5.2 (fspick(2)).
* It cannot become read-only while a process has a file of it open for writing: EBUSY (sb_prepare_remount_readonly).
* A mount that is attached nowhere keeps the instance: its entries outlast the last unmount, and ``umount`` succeeds.

docs/kernel.md has the measurements, tests/kernel/test_seal.py the tests.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from binfmtd.errors import SealError
from binfmtd.kernel.mount import Mounted

UNSEEN = "a process that the daemon may not look at has a file of it open for writing"
TAKES_CAPABILITY = (
    "sealing takes CAP_SYS_ADMIN in the user namespace that owns binfmt_misc: with systemd install "
    "drop-ins/sealed.conf, in a container add --cap-add SYS_ADMIN, in Kubernetes use overlays/sealed"
)
_MOST_WRITERS = 3  # processes that a message names


class Seal:
    """One instance, held by a mount of its own that is attached nowhere.

    ``closed``: it is to be read-only between our own writes; ``busy``: that failed, since a process has a file open.
    """

    def __init__(self, mounted: Mounted) -> None:
        """Hold the instance; it stays as it is.  Raises SealError."""
        from binfmtd.kernel.syscalls import clone_mount, make_mount_writable

        if mounted.read_only and not mounted.sealed:
            raise SealError(f"{mounted.directory}: this mount is read-only: bind binfmt_misc in writable")
        try:
            if mounted.sealed:  # `mount -o remount,ro` makes the mount that it names read-only as well
                with suppress(PermissionError):  # a sandbox forbids it; mostly the mount is writable
                    make_mount_writable(mounted.directory)
            self._mount = clone_mount(mounted.directory)
        except OSError as error:
            raise _cannot(mounted.directory, error) from None
        self.directory = mounted.directory
        self.device = os.fstat(self._mount).st_dev
        self.closed = self.busy = False
        if self.device != mounted.device:
            self.release()
            raise SealError(f"{mounted.directory}: binfmt_misc was mounted anew at this moment: try again")

    def release(self) -> None:
        """Hold the instance no longer; it stays read-only or writable."""
        os.close(self._mount)

    def is_read_only(self) -> bool:
        """Tell if the superblock is read-only now."""
        return bool(os.fstatvfs(self._mount).f_flag & os.ST_RDONLY)

    def open(self) -> None:
        """Make it writable for every process.  Raises SealError."""
        self.closed = False
        self._set(read_only=False)

    def close(self) -> bool:
        """Make it read-only; False if a process has a file open for writing.  Raises SealError."""
        self.closed = True
        return self._set(read_only=True)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Make it writable for a write of our own, and read-only again.

        Where that fails the write itself is refused, and says so.
        """
        if not self.closed:
            yield
            return
        with suppress(SealError):
            self._set(read_only=False)
        try:
            yield
        finally:
            with suppress(SealError):
                self._set(read_only=True)

    def _set(self, *, read_only: bool) -> bool:
        from binfmtd.kernel.syscalls import set_read_only

        try:
            set_read_only(self._mount, read_only)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise _cannot(self.directory, error) from None
            self.busy = True
            return False
        self.busy = False
        return True


def writers(device: int) -> str:
    """Say which processes have a file of this file system open for writing, as far as they can be seen here.

    Reads all of /proc, so it belongs in a thread.
    """
    found: list[str] = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        found += [f"{pid} {_command(pid)} has {name} open" for name in _open_for_writing(pid, device)]
    if not found:
        return UNSEEN
    more = f"; and {len(found) - _MOST_WRITERS} more" if len(found) > _MOST_WRITERS else ""
    return "; ".join(found[:_MOST_WRITERS]) + more


def how_to_open(directory: str) -> str:
    """Say that an instance is sealed, and what to do for whoever has to write to it."""
    return (
        "binfmt_misc is sealed (its file system is read-only), so no program can change entries: run "
        f"`mount -o remount,rw {directory}`, or `binfmtd apply` with `sealed = false` in the config; if a daemon of "
        "binfmtd keeps it sealed, change that one's config, or run `binfmtd pause` and later `binfmtd resume`"
    )


def _open_for_writing(pid: str, device: int) -> list[str]:
    names = []
    with suppress(OSError):  # it ended, or we may not look
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/fdinfo/{descriptor}") as info:
                flags = int(next(line for line in info if line.startswith("flags:")).split()[1], 8)
                path = f"/proc/{pid}/fd/{descriptor}"
                # O_PATH opens nothing, and its access mode says nothing.
                if flags & os.O_ACCMODE and not flags & os.O_PATH and os.stat(path).st_dev == device:
                    names.append(os.path.basename(os.readlink(path)))
    return names


def _command(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/comm", errors="replace") as file:
            return file.read().rstrip("\n")
    except OSError:
        return "(ended)"


def _cannot(directory: str, error: OSError) -> SealError:
    """Say why the instance cannot be sealed or opened, and what to do."""
    why = {
        errno.EPERM: TAKES_CAPABILITY,
        errno.ENOSYS: f"sealing takes Linux 5.2 (here {os.uname().release}), and open_tree(2) and fspick(2) allowed",
        errno.EINVAL: "it is no mount point in this mount namespace: bind binfmt_misc itself, not a directory above it",
    }.get(error.errno or 0, "see dmesg")
    return SealError(f"{directory}: cannot be sealed ({error.strerror}): {why}", error.errno or 0)
