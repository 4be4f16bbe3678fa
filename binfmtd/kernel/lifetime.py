"""How long entries last: a mount for commands that register entries and exit.

From Linux 6.7 on an instance ends with its last mount, silently and with all its entries.  Before, each entry keeps the
instance, except in newer releases of those series.  So entries that a container registers through a mount that only it
has may be gone when the container ends.

The kernel's version does not show which is the case, so it is tried: register an entry, unmount, mount again, and look
for the entry.
"""

import os
import time
from contextlib import suppress

from binfmtd.errors import MountError, VanishError
from binfmtd.files.environment import in_pod, in_user_namespace, init_lives_elsewhere, mounts_outlive_us
from binfmtd.formats.mountinfo import parse_mountinfo
from binfmtd.formats.register_line import encode_line
from binfmtd.host.forked import in_a_child
from binfmtd.host.kernel_module import DEFAULT_DIRECTORY, FS_TYPE
from binfmtd.kernel.instance import Instance
from binfmtd.kernel.mount import PARENT, Mounted, Where, bind_option, device_at, find, find_or_mount, is_mounted
from binfmtd.kernel.writer import REMOVE, Writer
from binfmtd.model.handler import Flags, Registration
from binfmtd.model.match import Extension

_TRIAL = ".binfmtd-trial~"  # not a stand-in's name, which a daemon would remove; SECONDS-RANDOM follow
_LEFT_BEHIND = 10.0  # seconds after which a trial's process must have been killed
_TRIES = 3
_TAKES_NOTHING = Registration(Extension("binfmtd-trial"), "/nonexistent", Flags.NONE)


def find_or_mount_to_last(where: Where) -> Mounted:
    """Find or mount an instance whose entries outlast this process.

    In a container with ``--pid=host``, also mount it in the host's mount namespace if the host has no mount.  Raises
    MountError.  Raises VanishError, and leaves nothing mounted, if all entries would end with this process.
    """
    try:
        return find(where.directory)
    except MountError:
        pass
    below = _opened(_mount_point(where.directory or DEFAULT_DIRECTORY))
    allowed = where.own_instance or not in_user_namespace()
    trouble = _mount_on_host(where) if allowed and init_lives_elsewhere() else None
    mounted = find_or_mount(where)
    lasts = False
    try:
        lasts = mounts_outlive_us() or _lasts(mounted.directory, below)
    finally:
        if below is not None:
            os.close(below)
        if not lasts:
            from binfmtd.host.syscalls import unmount

            with suppress(OSError):
                unmount(mounted.directory)
    if not lasts:
        raise VanishError(_what_to_do(mounted.directory, trouble))
    return find(mounted.directory)


def hold(directory: str, where: Where) -> bool:
    """Mount the instance also at ``directory``, which is created; return True if it was not mounted there yet.

    An instance ends with its last mount, so now its entries outlast an unmount at the usual place.  Raises MountError.
    """
    try:
        os.makedirs(directory, exist_ok=True)
    except OSError as error:
        raise MountError(f"{directory}: {error.strerror}: name another directory with --hold") from None
    if is_mounted(directory):
        return False
    find_or_mount(where._replace(directory=directory))
    return True


def _mount_point(directory: str) -> str:
    """Return the mount point of the file system that contains the directory: the directory itself, or one above it."""
    directory = os.path.realpath(directory)
    while not os.path.ismount(directory):
        directory = os.path.dirname(directory)
    return directory


def _opened(directory: str) -> int | None:
    """Open a directory before anything is mounted over it, to reach it afterwards; None if that is impossible."""
    with suppress(OSError):
        return os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return None


def _lasts(directory: str, below: int | None) -> bool:
    """Return True if entries outlast our mount.

    Another program's flush may remove the entry of a trial, so several are made.  ``below`` is a descriptor of the
    mount point under our mount.
    """
    # After a failed trial another instance is mounted: find it again.
    return any(_survives(find(directory), below) for _ in range(_TRIES))


def _survives(mounted: Mounted, below: int | None) -> bool:
    """Return True if an entry outlasts our mount: register one, unmount, mount again, look for it and remove it.

    Leaves the instance mounted, without the entry.  Raises MountError, WriteRefusedError.
    """
    from binfmtd.host.syscalls import MS_PRIVATE, mount, unmount

    name = f"{_TRIAL}{time.clock_gettime(time.CLOCK_BOOTTIME):.0f}-{os.urandom(4).hex()}"
    with Instance(mounted) as instance:
        (refused,) = Writer(instance).register([encode_line(name, _TAKES_NOTHING)])
        if refused is not None:
            raise MountError(f"{mounted.directory}: the kernel refused a trial entry ({refused.strerror}): see dmesg")
    if below is not None:
        # If the directory is bound from the host with shared propagation, our mount has been made on the host as well,
        # and stays there when this container ends.  But our unmount would unmount it there, too (mount_namespaces(7)).
        with suppress(OSError):  # EINVAL: nothing is bound right there
            mount("", f"/proc/self/fd/{below}", None, MS_PRIVATE)
    try:
        unmount(mounted.directory)
        mount(FS_TYPE, mounted.directory, FS_TYPE)
    except OSError as error:
        raise MountError(
            f"{mounted.directory}: {error.strerror}: another process is using this mount; try again"
        ) from None
    with Instance(find(mounted.directory)) as instance:
        writer = Writer(instance)
        for left in (entry_name for entry_name, _ in instance.inodes() if _left_behind(entry_name)):
            writer.control(left, REMOVE)
        return writer.control(name, REMOVE)


def _left_behind(name: str) -> bool:
    """Return True if this is the trial entry of a process that was killed."""
    seconds = name.removeprefix(_TRIAL).partition("-")[0]
    if not name.startswith(_TRIAL) or not seconds.isdecimal():
        return False
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(seconds) > _LEFT_BEHIND


def _mount_on_host(where: Where) -> str | None:
    """Mount binfmt_misc in process 1's mount namespace if it is not mounted there; return why that failed, or None."""
    with suppress(OSError):
        os.listdir(f"/proc/1/root{DEFAULT_DIRECTORY}")  # triggers the host's automount, which may be enough
        with open("/proc/1/mountinfo", "rb") as file:
            lines = [line for line in parse_mountinfo(file.read()) if line.fs_type == FS_TYPE]
        # A mount that another one covers does not count.
        if any(device_at(f"/proc/1/root{line.point}") == os.makedev(*line.device) for line in lines):
            return None
    return in_a_child(lambda: _mount_there(where))


def _mount_there(where: Where) -> None:
    """Enter process 1's mount namespace, for good, and mount binfmt_misc there."""
    import subprocess  # noqa: F401  loading a module takes it, and our own files are out of reach later

    from binfmtd.host.syscalls import enter_mount_namespace

    enter_mount_namespace(1)
    find_or_mount(where._replace(directory=None))


def _what_to_do(directory: str, trouble: str | None) -> str:
    tried = f" (and binfmtd cannot mount it there: {trouble})" if trouble else ""
    if in_user_namespace():
        return (
            f"{directory}: nothing was registered: this user namespace has no other mount of binfmt_misc, so all "
            "entries would vanish when this process exits: mount it once for the whole namespace, or run the daemon "
            "(binfmtd run), whose mount keeps the entries while it runs"
        )
    if in_pod():
        return (
            f"{directory}: nothing was registered: the node has no binfmt_misc mounted{tried}, and all entries would "
            "vanish when this container exits: mount it on the node (mount -t binfmt_misc binfmt_misc "
            f"{DEFAULT_DIRECTORY}), mount the node's {PARENT} in this container as a hostPath volume with "
            "mountPropagation Bidirectional and name it with --mount, or run the daemon (binfmtd run), whose mount "
            "keeps the entries while it runs"
        )
    with_host = "" if init_lives_elsewhere() else "run this with --pid=host, which lets binfmtd mount it there, "
    return (
        f"{directory}: nothing was registered: the host has no binfmt_misc mounted{tried}, and all entries would "
        "vanish when this container exits: mount it on the host (mount -t binfmt_misc binfmt_misc "
        f"{DEFAULT_DIRECTORY}) and bind it into this container ({bind_option()}), {with_host}or run the daemon "
        "(binfmtd run), whose mount keeps the entries while it runs"
    )
