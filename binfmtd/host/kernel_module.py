"""The kernel's module ``binfmt_misc``, which has to be loaded where it is not built in.

* ``modprobe`` loads it from the modules below our own root, which a container seldom has.
* The kernel runs the host's modprobe when a process asks for an unknown file system (get_fs_type in fs/filesystems.c).
  fsopen(2) asks for it.  mount(2) would, too, but needs a directory that exists only once the module is loaded.
"""

import os
from contextlib import suppress

FS_TYPE = "binfmt_misc"
DEFAULT_DIRECTORY = "/proc/sys/fs/binfmt_misc"  # the kernel creates it
_SECONDS = 30.0
_SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"  # root's PATH in a container or under cron may be shorter


def kernel_has_it() -> bool:
    """Return True if the kernel has the file system now, or if /proc cannot be read: then mount(2) shows it."""
    try:
        with open("/proc/filesystems", encoding="ascii", errors="replace") as file:
            return any(line.split()[-1:] == [FS_TYPE] for line in file)
    except OSError:
        return True


def why_no_directory() -> str:
    """Return why DEFAULT_DIRECTORY does not exist, with the remedy."""
    if not os.path.isdir("/proc/self"):
        return "/proc is not mounted: run `mount -t proc proc /proc`"
    if not os.path.isdir("/proc/sys"):
        return (
            "/proc has no directory sys, because it was mounted with subset=pid: mount or bind binfmt_misc at another "
            "directory (binfmtd finds it there), or mount /proc without that option"
        )
    return "load the kernel's module with `modprobe binfmt_misc`"


def load() -> str | None:
    """Load the module; return None if the kernel has the file system afterwards, else the reason why not."""
    import shutil

    reason = "modprobe is not installed here"
    if modprobe := shutil.which("modprobe", path=_SYSTEM_PATH):
        reason = _run(modprobe)
    if not kernel_has_it():
        from binfmtd.host.syscalls import make_kernel_know

        with suppress(OSError):  # fsopen(2) needs Linux 5.2, and CAP_SYS_ADMIN
            make_kernel_know(FS_TYPE)
    return None if kernel_has_it() else reason


def _run(modprobe: str) -> str:
    import subprocess

    try:
        done = subprocess.run(
            [modprobe, FS_TYPE], check=False, capture_output=True, stdin=subprocess.DEVNULL, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{modprobe}: {error}"
    lines = done.stderr.decode("utf-8", "replace").split("\n")
    return next((line for line in lines if line), f"{modprobe} exited with status {done.returncode}")
