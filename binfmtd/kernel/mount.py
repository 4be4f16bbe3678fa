"""Finding binfmt_misc, and mounting it where this process may and should.

A mount is recognized by its type in the mount table together with the device number, never by its path.  On systemd
hosts the path is an autofs trigger until a process opens it.  In a fresh container it is an empty directory, and any
file system may be mounted over it.

In a user namespace nothing is mounted unless an administrator asks for it: an instance of its own would hide the host's
handlers in there for good (fs/binfmt_misc.c, load_binfmt_misc).
"""

import _thread
import os
import re
import time
from contextlib import suppress
from typing import NamedTuple

from binfmtd.errors import PASSING, MountError
from binfmtd.files.cure import cure
from binfmtd.files.environment import container_manager, in_pod, in_user_namespace, owns_mount_namespace
from binfmtd.formats.mountinfo import MountLine, parse_mountinfo
from binfmtd.host.facts import may_mount
from binfmtd.host.kernel_module import DEFAULT_DIRECTORY, FS_TYPE, kernel_has_it, load, why_no_directory

_REMOTE = re.compile(
    rb" - (?:nfs4?|cifs|smb3|9p|ceph|fuse\S*|afs|lustre|gfs2|ocfs2|orangefs|coda|virtiofs|vboxsf|prl_fs|acfs) "
)
_CLOCK_REALTIME_COARSE = 5  # linux/time.h: the kernel's clock for the times of files
AUTOFS = "autofs"  # the type of an automount
MOUNT_TABLE = "/proc/self/mountinfo"
# The directories where a thread waits for an automount; the lock is held while one begins to, and while one is opened.
_awaited: set[str] = set()
_triggering = _thread.allocate_lock()
PARENT = os.path.dirname(DEFAULT_DIRECTORY)
# The option that binds the host's instance into a container: of docker and podman, and of other managers.
_BIND = f"-v {DEFAULT_DIRECTORY}:/binfmt_misc"
_BINDS = {
    "lxc": f"lxc.mount.entry = {DEFAULT_DIRECTORY} {DEFAULT_DIRECTORY.lstrip('/')} none bind 0 0",
    "systemd-nspawn": f"--bind={DEFAULT_DIRECTORY}:/binfmt_misc",
}


class Where(NamedTuple):
    """The place where binfmt_misc should be mounted, and what we may do to have it there."""

    directory: str | None = None  # None: at the usual place, or wherever the mount table has it
    autoload: bool = True  # load the kernel's module where it is missing
    own_instance: bool = False  # in a user namespace, mount an instance of its own


class Mounted(NamedTuple):
    """A directory at which an instance of binfmt_misc is mounted.

    ``read_only``: nothing can be written through this mount.  Either the mount itself is read-only
    (``mount_read_only``), or the instance is ``sealed``: its superblock is read-only, so every mount of it is.
    ``follows``: a mount of the instance in this mount namespace follows the host's mounts and unmounts.
    ``host_unmounted``, which only the daemon sets: a mount followed the host's, which has been unmounted since, so only
    this mount namespace keeps the instance.
    ``created``: when the instance was created, in nanoseconds (``created_at``); 0: not known.  The kernel gives the
    device number of an instance that has ended to the next one.
    ``ours_alone``, which only ``find_to_look`` sets: its mount created the instance.  So no other process had
    binfmt_misc mounted, and there were no entries.
    """

    directory: str
    device: int
    read_only: bool
    follows: bool = False
    host_unmounted: bool = False
    sealed: bool = False
    mount_read_only: bool = False
    created: int = 0
    ours_alone: bool = False

    @property
    def identity(self) -> tuple[int, int]:
        """Device number and time of creation: together they differ from those of each other instance of this boot."""
        return self.device, self.created


def bind_option() -> str:
    """Return the option of this container's manager that binds the host's instance into the container."""
    return _BINDS.get(container_manager(), _BIND)


def find(directory: str | None = None) -> Mounted:
    """Find a mounted binfmt_misc at ``directory``, or by default at the usual place or at any other mount point.

    Raises MountError; its message names what is at the path instead, and the remedy.
    """
    wanted = _wanted(directory)
    table = _mount_table(wanted)
    if _is_automount(wanted, table):
        _trigger_automount(wanted)
        table = _mount_table(wanted)
    if mounted := _at(wanted, table):
        return mounted
    if directory is None:
        for line in reversed(table):
            if line.fs_type == FS_TYPE and (mounted := _at(line.point, table)):
                return mounted
    raise MountError(_what_is_missing(wanted, table))


def find_to_look(directory: str | None = None) -> Mounted:
    """Find a mounted binfmt_misc to read it; if none is mounted, mount it for this process alone, if that is allowed.

    So a privileged container sees the host's entries.  The process enters a new mount namespace for good, and the mount
    ends with it.  Raises MountError.
    """
    try:
        return find(directory)
    except MountError:
        wanted = _wanted(directory)
        if not may_mount() or in_user_namespace() or not os.path.isdir(wanted) or _cover(wanted, _mount_table(wanted)):
            raise
    from binfmtd.host import syscalls

    try:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    except OSError as error:
        raise _not_mounted(wanted, error) from None
    before = time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)
    mounted = _mount(wanted)
    return mounted._replace(ours_alone=mounted.created >= before)


def is_mounted(directory: str | None) -> bool:
    """Return True if ``find`` finds binfmt_misc there."""
    try:
        find(directory)
    except MountError:
        return False
    return True


def find_or_mount(where: Where) -> Mounted:
    """Find a mounted binfmt_misc as ``find`` does; mount it if none is mounted and this process may and should.

    In a user namespace it should only with ``own_instance``.  Raises MountError.
    """
    wanted = _wanted(where.directory)
    try:
        return find(where.directory)
    except MountError:
        if not may_mount() or (in_user_namespace() and not where.own_instance):
            raise
    if not kernel_has_it():
        _load_module(where)
    if not os.path.isdir(wanted) or _cover(wanted, _mount_table(wanted)):
        raise MountError(_what_is_missing(wanted, _mount_table(wanted)))
    if where.directory is not None and _has_files(wanted):
        raise MountError(f"{wanted}: is not empty, and a mount would hide its files: name an empty directory")
    return _mount(wanted)


def _has_files(directory: str) -> bool:
    try:
        return bool(os.listdir(directory))
    except OSError:  # then the mount fails as well, with its reason
        return False


def _mount(directory: str) -> Mounted:
    from binfmtd.host.syscalls import mount

    try:
        mount(FS_TYPE, directory, FS_TYPE)
    except OSError as error:
        raise _not_mounted(directory, error) from None
    return find(directory)


def _not_mounted(directory: str, error: OSError) -> MountError:
    by_hand = f"mount it by hand, or bind the host's into the container ({bind_option()})"
    return MountError(f"{directory}: cannot mount binfmt_misc ({error.strerror}): {by_hand}")


def remote_devices() -> frozenset[int]:
    """Return the device numbers of file systems that may not answer, since another machine or a process serves them."""
    try:
        with open(MOUNT_TABLE, "rb") as file:
            lines = [line for line in file.read().split(b"\n") if _REMOTE.search(line)]
    except OSError:
        return frozenset()
    return frozenset(os.makedev(*line.device) for line in parse_mountinfo(b"\n".join(lines)))


def _load_module(where: Where) -> None:
    by_hand = "load the module with `modprobe binfmt_misc` on the host"
    if not where.autoload:
        raise MountError(f"this kernel has no binfmt_misc, and --no-autoload was given: {by_hand}")
    if why := load():
        raise MountError(f"this kernel has no binfmt_misc, and its module cannot be loaded ({why}): {by_hand}")


def open_place(mounted: Mounted) -> int | None:
    """Open the directory of an instance with O_PATH; return None if another file system is there by now.

    After an unmount the directory may be an automount (autofs) of systemd's.  Any other open(2), and any path that
    leads through the directory, then waits until systemd has mounted binfmt_misc.  With O_PATH, and without
    O_DIRECTORY, that happens only while another process or thread waits already (follow_automount in the kernel's
    fs/namei.c, autofs_d_manage in fs/autofs/root.c).  While a thread of ours does, None is returned.  Raises OSError.
    """
    with _triggering:
        if mounted.directory in _awaited:
            return None
        place = os.open(mounted.directory, os.O_PATH | os.O_CLOEXEC)
    if os.fstat(place).st_dev != mounted.device:
        os.close(place)
        return None
    return place


def _trigger_automount(directory: str) -> None:
    """Open the directory, so that the automount there mounts binfmt_misc; wait until it has."""
    with _triggering:
        _awaited.add(directory)
    try:
        with suppress(OSError):
            os.close(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    finally:
        _awaited.discard(directory)


def _is_automount(directory: str, table: tuple[MountLine, ...]) -> bool:
    device = device_at(directory)
    return any(line.fs_type == AUTOFS and os.makedev(*line.device) == device for line in table)


def does_not_answer(directory: str | None) -> MountError | None:
    """Return the error for a directory while a thread of ours waits for the automount there, else None."""
    wanted = _wanted(directory)
    if wanted not in _awaited:
        return None
    why = ": see `systemctl status proc-sys-fs-binfmt_misc.mount`" if wanted == DEFAULT_DIRECTORY else ""
    return MountError(f"{wanted}: the automount there has not mounted binfmt_misc yet{why}")


def _wanted(directory: str | None) -> str:
    """Return the directory without a slash at its end, with which the kernel would trigger an automount."""
    return (directory or DEFAULT_DIRECTORY).rstrip("/") or "/"


def device_at(directory: str) -> int | None:
    """Return the device number of the file at the path now; None if there is none."""
    try:
        return os.stat(directory).st_dev
    except OSError:
        return None


def _at(directory: str, table: tuple[MountLine, ...]) -> Mounted | None:
    try:
        place = os.open(directory, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        device = os.fstat(place).st_dev
        created = created_at(place, device)
    finally:
        os.close(place)
    real = os.path.realpath(directory)
    number = (os.major(device), os.minor(device))
    lines = [line for line in table if line.fs_type == FS_TYPE and line.device == number]
    if not lines:
        return None
    here = [line for line in lines if line.point == real]
    line = (here or lines)[-1]
    follows = any(line.follows for line in lines)
    return Mounted(
        directory,
        device,
        line.read_only,
        follows,
        sealed=line.superblock_read_only,
        mount_read_only=line.mount_read_only,
        created=created,
    )


def created_at(directory: str | int, device: int) -> int:
    """Return the time at which the instance was created, in nanoseconds; 0 if its ``register`` cannot be seen.

    ``directory``: its path or descriptor.  The kernel sets a file's times when it is created.  A shell's ``>`` changes
    those of modification and of change (O_TRUNC), and no read of `register` succeeds, so its time of access stays
    (tests/kernel/test_facts.py).
    """
    try:
        if isinstance(directory, int):
            register = os.stat("register", dir_fd=directory)
        else:
            register = os.stat(f"{directory}/register")
    except OSError:
        return 0
    return register.st_atime_ns if register.st_dev == device else 0


def is_sealed(mounted: Mounted) -> bool:
    """Return True if the superblock of this instance is read-only now; ``sealed`` if the mount table cannot be read."""
    number = (os.major(mounted.device), os.minor(mounted.device))
    try:
        table = _mount_table(mounted.directory)
    except MountError:
        return mounted.sealed
    return any(line.superblock_read_only for line in table if line.fs_type == FS_TYPE and line.device == number)


def _cover(directory: str, table: tuple[MountLine, ...]) -> str | None:
    """Return the type of a file system that is mounted exactly there and that our mount must not cover; else None.

    The table also contains mounts that another one covers (a newer /proc, say): they are not visible at the path.
    """
    real, device = os.path.realpath(directory), device_at(directory)
    here = [line.fs_type for line in table if line.point == real and os.makedev(*line.device) == device]
    # A bind mount of the empty directory in /proc/sys (systemd's ReadWritePaths) may be covered: it contains nothing.
    return here[-1] if here and here[-1] not in (FS_TYPE, AUTOFS, "proc") else None


def _what_is_missing(directory: str, table: tuple[MountLine, ...]) -> str:
    mounting = f"`mount -t binfmt_misc binfmt_misc {directory}`"
    if not os.path.isdir(directory):
        if directory == DEFAULT_DIRECTORY and not (kernel_has_it() and os.path.isdir("/proc/sys")):
            return f"{directory} does not exist: {why_no_directory()}"
        return (
            f"{directory} is not a directory: name one with --mount, or create it and mount binfmt_misc there with "
            f"{mounting}"
        )
    if over := _cover(directory, table):
        return f"{directory}: a file system of type {over} is mounted there, not binfmt_misc: unmount it"
    if _hidden_from_service(directory):
        return (
            f"{directory}: this service of systemd does not see the binfmt_misc that process 1 has mounted: if an "
            "administrator mounted it after the service had started, restart the service; systemd before 253 mounts a "
            "new /proc over it: install drop-ins/before-253.conf (docs/systemd.md)"
        )
    if in_user_namespace():
        return why_not_mounted_here(directory)
    return _how_to_mount(directory, mounting)


def why_not_mounted_here(directory: str) -> str:
    """Return why nothing is mounted in a user namespace without ``own_instance``, with the remedies."""
    bind = f"in a pod: a hostPath volume of {PARENT}" if in_pod() else f"in a container: {bind_option()}"
    # A service of systemd may not mount unless a drop-in gives it the capability.  It may have a new /proc, with the
    # mounts that the old one had at its start: a later mount does not appear there.
    by_hand = f"`mount -t binfmt_misc binfmt_misc {directory}` and then `systemctl restart binfmtd`"
    option = "--own-instance" if owns_mount_namespace() else "--own-instance, after `unshare --mount`"
    own = by_hand if _is_service() and not may_mount() else option
    return (
        f"{directory}: no binfmt_misc is mounted here, and this is a user namespace, where mounting an instance "
        f"would hide the host's handlers in it for good: bind the host's into it ({bind}), or mount a separate "
        f"instance for this namespace with {own}"
    )


def _hidden_from_service(directory: str) -> bool:
    """Return True in a service if process 1 has binfmt_misc mounted there."""
    if not _is_service():
        return False
    try:
        with open("/proc/1/mountinfo", "rb") as file:
            lines = parse_mountinfo(file.read())
    except OSError:
        return False
    return any(line.fs_type == FS_TYPE and line.point == os.path.realpath(directory) for line in lines)


def _is_service() -> bool:
    """Return True in a service of systemd, which sets this variable (systemd.exec(5))."""
    return "INVOCATION_ID" in os.environ


def _how_to_mount(directory: str, mounting: str) -> str:
    if in_pod():
        return (
            f"{directory}: binfmt_misc is not mounted: run `mount -t binfmt_misc binfmt_misc {DEFAULT_DIRECTORY}` on "
            f"the node, as a new pod of binfmtd's DaemonSet does, and mount the node's {PARENT} in this container as a "
            "hostPath volume"
        )
    if may_mount():
        bind = bind_option()
        return f"{directory}: binfmt_misc is not mounted: run {mounting}, or bind the host's into a container ({bind})"
    return (
        f"{directory}: binfmt_misc is not mounted, and mounting it needs CAP_SYS_ADMIN: run {mounting} as root; in a "
        f"container, start the container with --privileged, or bind the host's into it ({bind_option()})"
    )


def _mount_table(directory: str) -> tuple[MountLine, ...]:
    """Return the mounts of binfmt_misc and those at ``directory``: container hosts have thousands of other mounts."""
    place = os.path.basename(os.path.realpath(directory))
    needles = [FS_TYPE.encode(), *([place.encode()] if re.fullmatch(r"[\w.-]+", place, re.ASCII) else [b""])]
    try:
        with open(MOUNT_TABLE, "rb") as file:
            lines = [line for line in file.read().split(b"\n") if any(needle in line for needle in needles)]
        return parse_mountinfo(b"\n".join(lines))
    except OSError as error:
        remedy = cure(error) if error.errno in PASSING else "/proc must be mounted to find binfmt_misc"
        raise MountError(f"{MOUNT_TABLE}: {error.strerror}: {remedy}", error.errno) from None
