"""The mount table of a process, /proc/PID/mountinfo.

Source: proc_pid_mountinfo(5).  Fields: mount id, parent id, major:minor, root, mount point, mount options, optional
fields up to a lone ``-``, file system type, source, super options.  Space, tab, newline and backslash are written as
octal escapes.
"""

import re
from typing import NamedTuple

from binfmtd.formats.register_line import to_text

_OCTAL = re.compile(rb"\\([0-7]{3})")


class MountLine(NamedTuple):
    """One mount.

    ``device`` is (major, minor), ``root`` the directory of the file system that is mounted at ``point``.
    ``mount_read_only`` is the mount's own flag, ``superblock_read_only`` that of the whole file system, and
    ``read_only`` either of them.  ``follows``: it receives the mounts and unmounts of a peer group to which it does not
    belong (the optional field ``master``).
    """

    mount_id: int
    device: tuple[int, int]
    root: str
    point: str
    read_only: bool
    superblock_read_only: bool
    fs_type: str
    follows: bool = False
    mount_read_only: bool = False


def parse_mountinfo(text: bytes) -> tuple[MountLine, ...]:
    """Read the table, oldest mount first; lines that cannot be parsed are left out."""
    mounts = []
    for line in text.split(b"\n"):  # a directory's name may contain a carriage return, which is not escaped
        fields = line.split(b" ")
        try:
            dash = fields.index(b"-", 6)
            major, minor = fields[2].split(b":")
            of_superblock = b"ro" in fields[dash + 3].split(b",")
            of_mount = b"ro" in fields[5].split(b",")
            mounts.append(
                MountLine(
                    int(fields[0]),
                    (int(major), int(minor)),
                    _unescape(fields[3]),
                    _unescape(fields[4]),
                    of_superblock or of_mount,
                    of_superblock,
                    to_text(fields[dash + 1]),
                    any(field.startswith(b"master:") for field in fields[6:dash]),
                    of_mount,
                )
            )
        except (ValueError, IndexError):
            continue
    return tuple(mounts)


def _unescape(field: bytes) -> str:
    return to_text(_OCTAL.sub(lambda match: bytes((int(match[1], 8) & 0xFF,)), field))
