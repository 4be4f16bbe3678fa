"""What this host is: which kernel, whose root, what we may, and how its own programs look."""

import os
import re
import sys

from binfmtd.errors import FormatError
from binfmtd.files.whereabouts import in_user_namespace, shares_root_with_init
from binfmtd.model.guard import NativeHeader


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


def judges_paths() -> bool:
    """Whether who executes a foreign program resolves an interpreter's path in the same root as we do.

    In a user namespace of its own an instance serves that namespace alone, hence our neighbours.  In the first user
    namespace everybody is served, and only init's root is theirs.  Who may not look is an ordinary user, not a
    container that manages handlers.
    """
    return in_user_namespace() or shares_root_with_init() is not False


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
