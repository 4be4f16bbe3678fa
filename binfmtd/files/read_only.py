"""Files that cannot be written because of how their file system is mounted.

* On a read-only superblock nothing can be written through any mount.
* A read-only mount forbids writing through that mount alone.  On a host it protects nothing: systemd's ProtectSystem
  makes one for the daemon, and every other process writes to the same file through its own mount.
* In a container a read-only mount counts (the files of a ConfigMap have mode 0777), unless process 1 of the container
  has a mount namespace other than ours and can write to the same file in it.  That is the case in a system container,
  where systemd starts the daemon under ProtectSystem, too.
* The mount table of process 1 shows its mount namespace: the kernel gives each mount one number, so a number in both
  tables is the same mount.  /proc/1/mountinfo may be read without privileges, unlike /proc/1/ns and /proc/1/root.
  Where it cannot be read (hidepid), a read-only mount does not count.
* A process 1 with another root directory (a host's, seen by ``--pid=host``; that of a pod with one process namespace)
  is outside of our container, and its mounts are not compared.
"""

import os
from collections.abc import Sequence

from binfmtd.formats.mountinfo import MountLine, parse_mountinfo


def unwritable(path: str, *, contained: bool) -> bool:
    """Return True if the mounts forbid writing to this file or directory, which must not be a link.

    ``contained``: we are in a container.  If the mounts cannot be read, the result is False.
    """
    try:
        if not os.statvfs(path).f_flag & os.ST_RDONLY:
            return False
        number, real = _find(path)
        ours = _table("self")
        mount = next((line for line in ours if line.mount_id == number), None)
        if mount is None:  # it lies outside of our root directory
            return False
        return mount.superblock_read_only or (contained and protects(mount, real, ours, _table("1")))
    except (OSError, ValueError):
        return False


def protects(mount: MountLine, path: str, ours: Sequence[MountLine], of_init: Sequence[MountLine]) -> bool:
    """Return True if a read-only ``mount`` of our table keeps process 1, too, from writing to ``path`` on it."""
    if not mount.read_only or not of_init:
        return False
    if any(line.mount_id == mount.mount_id for line in of_init) or _apart(ours, of_init):
        return True
    inside = os.path.normpath(os.path.join(mount.root, os.path.relpath(path, mount.point)))
    theirs = [line for line in of_init if line.device == mount.device and _contains(line.root, inside)]
    return all(line.read_only for line in theirs)


def _apart(ours: Sequence[MountLine], of_init: Sequence[MountLine]) -> bool:
    """Return True if our root is surely neither process 1's nor a directory below it (systemd's RootDirectory)."""
    our_root, root = _root(ours), _root(of_init)
    if our_root is None or root is None:
        return False
    return our_root.device != root.device or not _contains(root.root, our_root.root)


def _root(table: Sequence[MountLine]) -> MountLine | None:
    """Return the uppermost mount at ``/``; None for a process whose root directory is not a mount point."""
    return next((line for line in reversed(table) if line.point == "/"), None)


def _contains(directory: str, path: str) -> bool:
    return f"{path}/".startswith(f"{directory.rstrip('/')}/")


def _find(path: str) -> tuple[int, str]:
    """Return the number of the mount that a file is on, and the file's path without links."""
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{descriptor}", "rb") as file:
            fields = dict(line.split(b":", 1) for line in file if b":" in line)
        return int(fields.get(b"mnt_id", b"")), os.readlink(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _table(process: str) -> tuple[MountLine, ...]:
    with open(f"/proc/{process}/mountinfo", "rb") as file:
        return parse_mountinfo(file.read())
