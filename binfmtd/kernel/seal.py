"""Sealing an instance: its superblock is read-only, so no process can change, remove or register an entry.

* A read-only superblock refuses each write through each mount with EROFS, also for root.  Programs run as before.
* The daemon makes the superblock writable for each of its own writes, then read-only again: about 20 us.  This needs
  CAP_SYS_ADMIN in the user namespace that owns the instance, and Linux 5.2 (fspick(2)).
* The superblock cannot become read-only while a process has a file open for writing: EBUSY
  (sb_prepare_remount_readonly).
* A mount that is attached nowhere keeps the instance: its entries outlast the last unmount, and ``umount`` succeeds.

docs/kernel.md has the measurements, tests/kernel/test_seal.py the tests.
"""

import errno
import os
from collections.abc import Collection
from contextlib import suppress

from binfmtd.errors import PASSING, SealError
from binfmtd.files.cure import cure
from binfmtd.formats.mountinfo import parse_mountinfo
from binfmtd.kernel.mount import Mounted, created_at

# Errors that an immediate retry does not end.
LASTING = frozenset({errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EINVAL})
UNSEEN = (
    "a process has a file of binfmt_misc open for writing, and the daemon has no permission to inspect that process"
)
TAKES_CAPABILITY = (
    "that needs CAP_SYS_ADMIN in the user namespace that owns binfmt_misc: with systemd install drop-ins/sealed.conf, "
    "in a container add --cap-add SYS_ADMIN, in Kubernetes use overlays/sealed; if the capability is present, a "
    "seccomp profile or a security module forbids open_tree(2), fspick(2) or fsconfig(2)"
)
_MOST_WRITERS = 3  # processes that a message names at most
_CONTROL_FILES = frozenset({"register", "status"})


class Seal:
    """One instance, held by our own mount, which is attached nowhere.

    ``closed``: the superblock has to be read-only between our own writes.  ``left_open``: after the last of them it
    could not be made read-only.
    """

    def __init__(self, mounted: Mounted) -> None:
        """Hold the instance; its superblock stays as it is.  Raises SealError."""
        from binfmtd.host.syscalls import clone_mount

        self.directory = mounted.directory
        if mounted.mount_read_only and not mounted.sealed:
            raise SealError(f"{self.directory}: this mount is read-only: bind binfmt_misc writable", errno.EINVAL)
        # The copy of a read-only mount is read-only, so it would not show the state of the superblock.
        self.free_mount(mounted)
        try:
            self._mount = clone_mount(self.directory)
        except OSError as error:
            raise _cannot("sealed", self.directory, error) from None
        try:
            self.device = os.fstat(self._mount).st_dev
        except OSError as error:  # AppArmor, whose profile does not allow what is attached nowhere
            self.release()
            raise _cannot("sealed", self.directory, error) from None
        self.identity = mounted.identity
        self.closed = self.left_open = False
        if self.device != mounted.device or mounted.created not in (0, created_at(self._mount, self.device)):
            self.release()
            raise SealError(f"{self.directory}: another process has just mounted binfmt_misc there: try again")

    def free_mount(self, mounted: Mounted) -> None:
        """Make the mount itself writable, since ``mount -o remount,ro`` changes both.  Raises SealError."""
        from binfmtd.host.syscalls import make_mount_writable

        self.directory = mounted.directory  # after an unmount another mount of the instance is used
        if mounted.mount_read_only:
            try:
                make_mount_writable(self.directory)
            except OSError as error:
                raise _cannot("written to", self.directory, error) from None

    def release(self) -> None:
        """Hold the instance no longer; its superblock stays as it is."""
        os.close(self._mount)

    def names(self) -> list[str]:
        """List the entries and control files, even if the instance is mounted nowhere.  Raises OSError."""
        return os.listdir(f"/proc/self/fd/{self._mount}")

    def is_read_only(self) -> bool:
        """Return True if the superblock is read-only now."""
        return bool(os.fstatvfs(self._mount).f_flag & os.ST_RDONLY)

    def open(self) -> None:
        """Make the superblock writable for every process.  Raises SealError."""
        self.closed = False
        self._set("opened", read_only=False)

    def close(self) -> bool:
        """Make the superblock read-only; return False if a process has a file open for writing.  Raises SealError."""
        self.closed = True
        return self._set("sealed", read_only=True)

    def begin_write(self) -> None:
        """Make the superblock writable for our own write.  If that fails, the kernel refuses the write with EROFS."""
        if self.closed:
            with suppress(SealError):
                self._set("opened", read_only=False)

    def end_write(self) -> None:
        """Make the superblock read-only again; ``left_open`` records a failure."""
        if self.closed:
            self.left_open = True
            with suppress(SealError):
                self.left_open = not self._set("sealed", read_only=True)

    def _set(self, what: str, *, read_only: bool) -> bool:
        from binfmtd.host.syscalls import set_read_only

        try:
            set_read_only(self._mount, read_only)
        except OSError as error:
            if error.errno == errno.EBUSY:
                return False
            raise _cannot(what, self.directory, error) from None
        return True


def writers(device: int, entries: Collection[str]) -> str:
    """Return a text that names the processes which have one of these entries or a control file open for writing.

    ``device`` is the instance's.  Reads all of /proc, so it belongs in a thread.  It reads no other file system, which
    might not answer.
    """
    names = _CONTROL_FILES.union(entries)
    descriptions: list[str] = []
    with suppress(OSError):
        for pid in filter(str.isdecimal, os.listdir("/proc")):
            descriptions += [f"{_command(pid)} has {name} open" for name in _open_for_writing(pid, device, names)]
    if not descriptions:
        return UNSEEN
    more = f"; and {len(descriptions) - _MOST_WRITERS} more" if len(descriptions) > _MOST_WRITERS else ""
    return "; ".join(descriptions[:_MOST_WRITERS]) + more


def how_to_open(directory: str) -> str:
    """Return the message that an instance is sealed, with the remedy for an administrator who has to write to it."""
    return (
        "binfmt_misc is sealed (its file system is read-only), so no program can change entries: run "
        f"`mount -o remount,rw {directory}`, or `binfmtd apply` with `sealed = false` in the config; if a daemon of "
        "binfmtd keeps it sealed, change the config of that daemon, or run `binfmtd pause` and later `binfmtd resume`"
    )


def _open_for_writing(pid: str, device: int, names: Collection[str]) -> list[str]:
    open_names = []
    with suppress(OSError):  # the process has ended, or we may not read this
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                name = os.path.basename(os.readlink(f"/proc/{pid}/fd/{descriptor}").removesuffix(" (deleted)"))
                if name in names and device == _written_device(pid, descriptor):
                    open_names.append(name)
    return open_names


def _written_device(pid: str, descriptor: str) -> int | None:
    """Return the device that a descriptor writes to, from its mount (proc_pid_fdinfo(5)); None if it only reads."""
    with open(f"/proc/{pid}/fdinfo/{descriptor}", encoding="ascii", errors="replace") as file:
        fdinfo = dict(line.split(":", 1) for line in file if ":" in line)
    flags = int(fdinfo.get("flags", "0"), 8)
    if not flags & os.O_ACCMODE or flags & os.O_PATH:  # O_PATH does not open the file itself
        return None
    with open(f"/proc/{pid}/mountinfo", "rb") as table:
        mounts = {line.mount_id: line.device for line in parse_mountinfo(table.read())}
    numbers = mounts.get(int(fdinfo.get("mnt_id", "-1")))
    return None if numbers is None else os.makedev(*numbers)


def _command(pid: str) -> str:
    if int(pid) == os.getpid():
        return "this daemon, which waits for an interpreter whose file system does not answer,"
    try:
        with open(f"/proc/{pid}/comm", errors="replace") as file:
            return f"process {pid} ({file.read().rstrip()})"
    except OSError:
        return f"process {pid} (ended)"


def _cannot(what: str, directory: str, error: OSError) -> SealError:
    """Return the error for an instance that cannot be sealed or opened, with the remedy."""
    why = {
        errno.EPERM: TAKES_CAPABILITY,
        errno.EACCES: (
            "a security module forbids it, and dmesg has what it denied; a profile of AppArmor needs the flag "
            "attach_disconnected, as in config/apparmor"
        ),
        errno.ENOSYS: (
            f"that needs Linux 5.2 or later (here {os.uname().release}), and a seccomp profile that allows "
            "open_tree(2) and fspick(2)"
        ),
        errno.EINVAL: (
            "it is not a mount point in this mount namespace: bind binfmt_misc itself, not a directory above it"
        ),
    }.get(error.errno or 0, cure(error) if error.errno in PASSING else "see dmesg")
    return SealError(f"{directory}: cannot be {what} ({error.strerror}): {why}", error.errno or 0)
