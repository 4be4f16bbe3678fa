"""The mounts at the mount point, one over the other, and the owner of the instance: to explain them, not to mount.

* All mounts of an instance have its device number, and each instance has another one.
* No file names the owner of an instance.  But the owner of its files is root of the user namespace that mounted it
  (fs/inode.c, inode_init_always: i_uid_write maps 0 through the superblock's user namespace).
* Every process can read process 1's mount table (fs/proc_namespace.c, mounts_open_common).
"""

import os
from enum import StrEnum
from typing import NamedTuple

from binfmtd.files.environment import in_user_namespace, shares_first_processes
from binfmtd.formats.mountinfo import MountLine, parse_mountinfo
from binfmtd.host.kernel_module import FS_TYPE
from binfmtd.kernel.mount import AUTOFS, MOUNT_TABLE, Mounted


class Owner(StrEnum):
    """The owner of an instance, as seen from this user namespace."""

    OUTSIDE = "outside"  # the host, or a user namespace around this one
    OWN = "own"  # this user namespace; or one around it, if their root is the same user
    UNKNOWN = "unknown"


class Layers(NamedTuple):
    """The mounts at one point, the lowest first, and the mounts of binfmt_misc at other points."""

    here: tuple[MountLine, ...]
    elsewhere: tuple[MountLine, ...]

    @property
    def top(self) -> MountLine | None:
        """The mount that is visible at the point; None if nothing is mounted exactly there."""
        return self.here[-1] if self.here else None

    @property
    def covered(self) -> bool:
        """True if binfmt_misc is mounted there, and another file system covers it."""
        return any(line.fs_type == FS_TYPE for line in self.here[:-1]) and self.here[-1].fs_type != FS_TYPE

    @property
    def automounted(self) -> bool:
        """True if an automount (autofs) is mounted at the point."""
        return any(line.fs_type == AUTOFS for line in self.here)


def layers(directory: str) -> Layers:
    """Read the mounts from the mount table; none if it cannot be read."""
    real = os.path.realpath(directory)
    lines = _table(MOUNT_TABLE) or ()
    return Layers(
        tuple(line for line in lines if line.point == real),
        tuple(line for line in lines if line.point != real and line.fs_type == FS_TYPE),
    )


def owner_of(mounted: Mounted) -> Owner:
    """Return the owner of an instance, as far as we can see; in the first user namespace that is the host (OUTSIDE)."""
    if not in_user_namespace():
        return Owner.OUTSIDE
    try:
        if os.stat(mounted.directory).st_uid != 0:
            return Owner.OUTSIDE  # root of a namespace around this one, which no user in here is
        with open("/proc/self/uid_map", encoding="ascii") as file:
            is_same_root = any(words[:2] == ["0", "0"] for words in map(str.split, file))
    except OSError:
        return Owner.UNKNOWN
    if not is_same_root:
        return Owner.OWN
    lines = _table("/proc/1/mountinfo") if shares_first_processes() else None
    if lines is None:
        return Owner.UNKNOWN
    theirs = {os.makedev(*line.device) for line in lines if line.fs_type == FS_TYPE}
    return Owner.OUTSIDE if mounted.device in theirs else Owner.OWN


def _table(path: str) -> tuple[MountLine, ...] | None:
    try:
        with open(path, "rb") as file:
            return parse_mountinfo(file.read())
    except OSError:
        return None
