"""The system calls that Python's os module lacks: mount(2), umount2(2), unshare(2) (os has it from 3.12), prctl(2).

ctypes costs 10 ms to import, so whoever needs one of these imports this module where it is used.  Each function raises
OSError with the kernel's errno.
"""

import ctypes
import os

MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REC = 16384
MS_PRIVATE = 1 << 18
CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, fs_type: str | None, flags: int = 0) -> None:
    """Mount a file system, or change the propagation of a mount."""
    fs = None if fs_type is None else fs_type.encode()
    _check(_libc.mount(os.fsencode(source), os.fsencode(target), fs, ctypes.c_ulong(flags), None), target)


def unshare(flags: int) -> None:
    """Move this process into namespaces of its own."""
    _check(_libc.unshare(flags))


def signal_when_parent_dies(signal: int) -> None:
    """Have the kernel send ``signal`` to this process when the thread that made it ends; survives execve."""
    _check(_libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal), 0, 0, 0))


def _check(result: int, path: str | None = None) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
