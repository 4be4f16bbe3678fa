"""Where this process stands: in the host's own namespaces, or in somebody's container.

Source of the numbers: include/linux/proc_ns.h.  The first namespaces of a kernel have fixed ones.
"""

import os

_INITIAL_USER = "user:[4026531837]"
_INITIAL_PID = "pid:[4026531836]"


def in_user_namespace() -> bool:
    """Whether this is a user namespace other than the kernel's first; without /proc, no."""
    return _namespace("user") not in (_INITIAL_USER, "")


def shares_root_with_init() -> bool | None:
    """Whether our root directory is that of the host's process 1; None where we may not look."""
    if _namespace("pid") != _INITIAL_PID:
        return False  # then process 1 is the container's, and says nothing about the host
    try:
        ours, theirs = os.stat("/"), os.stat("/proc/1/root/")
    except OSError:
        return None
    return (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino)


def _namespace(kind: str) -> str:
    try:
        return os.readlink(f"/proc/self/ns/{kind}")
    except OSError:
        return ""
