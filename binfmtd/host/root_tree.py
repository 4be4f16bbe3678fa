"""A foreign root tree, prepared to run programs in it: the mounts that a build expects beside the system's files.

All of them are made in the caller's own mount namespace, and end with it.
"""

import os
import stat
from contextlib import suppress

from binfmtd.errors import SandboxError

_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "ptmx": "pts/ptmx"}
_FOR_ALL = "shm"  # the directory of shm_open(3)
_RESOLV_CONF = "/etc/resolv.conf"


def check_tree(root: str) -> os.stat_result:
    """Return the stat result of the root, for its owner.

    Raises SandboxError unless it looks like a root directory, and another than ours.
    """
    try:
        status = os.stat(root)
        if os.path.samestat(status, os.stat("/")):
            raise SandboxError(f"{root} is this system's own root directory: leave --root out")
        for name in ("proc", "dev"):
            if not stat.S_ISDIR(os.lstat(os.path.join(root, name)).st_mode):
                raise SandboxError(f"{root}/{name} is not a directory: --root takes the root directory of a system")
    except OSError as error:
        raise SandboxError(
            f"{error.filename}: {error.strerror}: --root takes the root directory of a system, with proc and dev in it"
        ) from None
    return status


def furnish(root: str) -> None:
    """Mount /proc, /sys, /dev and this host's resolv.conf in the tree.  Raises SandboxError."""
    from binfmtd.host.syscalls import MS_BIND, MS_NOSUID, MS_REC, mount

    try:
        mount("/proc", f"{root}/proc", None, MS_BIND | MS_REC)
        if os.path.isdir(f"{root}/sys") and not os.path.islink(f"{root}/sys"):
            mount("/sys", f"{root}/sys", None, MS_BIND | MS_REC)
        mount("dev", f"{root}/dev", "tmpfs", MS_NOSUID, "mode=755")
        for name in _DEVICES:
            if os.path.exists(f"/dev/{name}"):
                _mount_point(f"{root}/dev/{name}")
                mount(f"/dev/{name}", f"{root}/dev/{name}", None, MS_BIND)
        for name, target in _LINKS.items():
            os.symlink(target, f"{root}/dev/{name}")
        os.mkdir(f"{root}/dev/{_FOR_ALL}")
        mount("shm", f"{root}/dev/{_FOR_ALL}", "tmpfs", MS_NOSUID, "mode=1777")
        if os.path.isdir("/dev/pts"):
            os.mkdir(f"{root}/dev/pts")
            mount("/dev/pts", f"{root}/dev/pts", None, MS_BIND | MS_REC)
        _resolve_names(root)
    except OSError as error:
        raise SandboxError(f"{error.filename or root}: {error.strerror}: it cannot be prepared for --root") from None


def _resolve_names(root: str) -> None:
    """Mount this host's resolv.conf over the tree's, or over an empty file if the tree has none.

    A symbolic link is left alone: its target is up to the tree, and may lie outside of it.
    """
    from binfmtd.host.syscalls import MS_BIND, mount

    inside = root + _RESOLV_CONF
    if not os.path.exists(_RESOLV_CONF) or not os.path.isdir(f"{root}/etc") or os.path.islink(f"{root}/etc"):
        return
    if os.path.islink(inside):
        return
    with suppress(FileExistsError):
        _mount_point(inside)
    mount(os.path.realpath(_RESOLV_CONF), inside, None, MS_BIND)


def _mount_point(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
