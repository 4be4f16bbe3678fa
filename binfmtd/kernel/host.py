"""Where we are: which kernel, which user namespace, whose root, and what this host's own programs look like."""

import os
import re
import sys

from binfmtd.errors import FormatError
from binfmtd.model.guard import NativeHeader

# include/linux/proc_ns.h: the first namespaces of a kernel have fixed numbers.
_INITIAL_USER = "user:[4026531837]"
_INITIAL_PID = "pid:[4026531836]"


def kernel_version() -> tuple[int, int]:
    """Major and minor of the running kernel; (0, 0) where it does not tell."""
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def boot_id() -> str:
    """The kernel's random name for this boot; empty where /proc does not have it."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def in_user_namespace() -> bool:
    """Whether this is a user namespace other than the kernel's first."""
    return _namespace("user") != _INITIAL_USER


def judges_paths() -> bool:
    """Whether who executes a foreign program resolves an interpreter's path in the same root as we do.

    In a user namespace of its own an instance serves that namespace alone, hence our neighbours.  In the first user
    namespace everybody is served, and only init's root is theirs.
    """
    if in_user_namespace():
        return True
    if _namespace("pid") != _INITIAL_PID:
        return False
    try:
        ours, theirs = os.stat("/"), os.stat("/proc/1/root/")
    except OSError:
        return True  # not allowed to look: an ordinary user, not a container that manages handlers
    return (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino)


def native_header() -> NativeHeader:
    """The ELF header of the program that runs this code."""
    for path in ("/proc/self/exe", sys.executable):
        try:
            with open(path, "rb") as file:
                return NativeHeader.parse(file.read(64))
        except (OSError, FormatError):
            continue
    return NativeHeader(2 if sys.maxsize > 2**32 else 1, 1 if sys.byteorder == "little" else 2, 0)


def may_mount() -> bool:
    """Whether this process has CAP_SYS_ADMIN (bit 21) in force."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith("CapEff:"):
                    return bool(int(line.split()[1], 16) & 1 << 21)
    except (OSError, ValueError, IndexError):
        pass
    return False


def _namespace(kind: str) -> str:
    try:
        return os.readlink(f"/proc/self/ns/{kind}")
    except OSError:
        return ""
