"""What lies over what at the mount point, and whose instance is there: for who explains it, not for who mounts.

* All mounts of an instance have its device number, and each instance has another one.
* Who owns an instance is nowhere written.  The owner of its files is root of the user namespace that mounted it
  (fs/inode.c, inode_init_always: i_uid_write maps 0 through the superblock's user namespace), and process 1's mount
  table can be read by everybody (fs/proc_namespace.c, mounts_open_common).
"""

import os
from enum import StrEnum
from typing import NamedTuple

from binfmtd.files.whereabouts import in_user_namespace, shares_first_processes
from binfmtd.formats.mountinfo import MountLine, parse_mountinfo
from binfmtd.kernel.module import FS_TYPE
from binfmtd.kernel.mount import MOUNT_TABLE, Mounted

AUTOFS = "autofs"


class Owner(StrEnum):
    """Whose instance it is."""

    OUTSIDE = "outside"  # the host's, or that of a user namespace around this one
    OWN = "own"  # this user namespace's; or, where root is everywhere the same, that of one around it
    UNKNOWN = "unknown"


class Layers(NamedTuple):
    """The mounts at one point, the lowest first, and the other points at which binfmt_misc is mounted."""

    here: tuple[MountLine, ...]
    elsewhere: tuple[MountLine, ...]

    @property
    def top(self) -> MountLine | None:
        """What one sees there; None if nothing is mounted right there."""
        return self.here[-1] if self.here else None

    @property
    def covered(self) -> bool:
        """Whether binfmt_misc is mounted there, and something else lies over it."""
        return any(line.fs_type == FS_TYPE for line in self.here[:-1]) and self.here[-1].fs_type != FS_TYPE

    @property
    def automounted(self) -> bool:
        """Whether an automount is in charge of the point."""
        return any(line.fs_type == AUTOFS for line in self.here)


def layers(directory: str) -> Layers:
    """Read them from the mount table; without it, none."""
    real = os.path.realpath(directory)
    lines = _table(MOUNT_TABLE) or ()
    return Layers(
        tuple(line for line in lines if line.point == real),
        tuple(line for line in lines if line.point != real and line.fs_type == FS_TYPE),
    )


def owner_of(mounted: Mounted) -> Owner:
    """Whose instance this is, as far as can be seen from here; outside of user namespaces the host's is what serves."""
    if not in_user_namespace():
        return Owner.OUTSIDE
    try:
        if os.stat(mounted.directory).st_uid != 0:
            return Owner.OUTSIDE  # root of a namespace around this one, whom nobody in here is
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
