"""The kernel's module ``binfmt_misc``, where it is not built in.

Two ways lead to it.  ``modprobe`` reads the modules below our own root, which a container seldom has.  The kernel
itself, asked for a file system that it does not know, runs the host's modprobe (get_fs_type in fs/filesystems.c);
mount(2) would ask it too, but needs a directory that is not there before the module is.
"""

from contextlib import suppress

FS_TYPE = "binfmt_misc"
DEFAULT_DIRECTORY = "/proc/sys/fs/binfmt_misc"  # which the kernel makes for it
_SECONDS = 30.0
_SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"  # root's PATH in a container or under cron may be shorter


def kernel_has_it() -> bool:
    """Whether the kernel knows the file system now; True where nobody can tell, since mount(2) will."""
    try:
        with open("/proc/filesystems", encoding="ascii", errors="replace") as file:
            return any(line.split()[-1:] == [FS_TYPE] for line in file)
    except OSError:
        return True


def load() -> str | None:
    """Have it loaded; None if the kernel knows the file system afterwards, else why it does not."""
    import shutil

    said = "there is no modprobe here"
    if modprobe := shutil.which("modprobe", path=_SYSTEM_PATH):
        said = _run(modprobe)
    if not kernel_has_it():
        from binfmtd.kernel.syscalls import make_kernel_know

        with suppress(OSError):  # no such call before Linux 5.2, or not for us
            make_kernel_know(FS_TYPE)
    return None if kernel_has_it() else said


def _run(modprobe: str) -> str:
    import subprocess

    try:
        done = subprocess.run(
            [modprobe, FS_TYPE], check=False, capture_output=True, stdin=subprocess.DEVNULL, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{modprobe}: {error}"
    lines = done.stderr.decode("utf-8", "replace").split("\n")
    return next((line for line in lines if line), f"{modprobe} ended with status {done.returncode}")
