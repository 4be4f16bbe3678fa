"""Facts about this host: its kernel, this boot, our root directory and privileges, and the form of its programs."""

import os
import re
import sys

from binfmtd.errors import FormatError
from binfmtd.files.environment import in_user_namespace, shares_root_with_init
from binfmtd.model.guard import NativeHeader

# The file that the kernel runs for this thread.  In a container for another machine that is the emulator: emulators
# replace /proc/self/exe by the file that they run (do_guest_openat in QEMU's linux-user/syscall.c), but not this path.
OWN_PROGRAM = "/proc/thread-self/exe"


def kernel_version() -> tuple[int, int]:
    """Return the major and minor version of the running kernel; (0, 0) if its release begins with no such numbers."""
    version = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return (int(version[1]), int(version[2])) if version else (0, 0)


def boot_id() -> str:
    """Return the kernel's random id of this boot; empty if /proc does not contain it."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def judges_paths() -> bool:
    """Return True if processes that execute foreign programs resolve an interpreter's path in the same root as we do.

    An instance of our own user namespace serves only that namespace, so our neighbours.  The instance of the first user
    namespace serves all processes of the host, so the root of the host's init counts.  A process that may not read that
    root counts as an ordinary user's, not as a container that manages handlers.
    """
    return in_user_namespace() or shares_root_with_init() is not False


def native_header() -> NativeHeader:
    """Return the ELF header of the program that runs this code: of the emulator, if this process is emulated.

    If its file cannot be read: a header with the right word size and byte order, and machine 0.
    """
    for path in (OWN_PROGRAM, sys.executable):
        try:
            with open(path, "rb") as file:
                return NativeHeader.parse(file.read(64))
        except (OSError, FormatError):
            continue
    return NativeHeader(2 if sys.maxsize > 2**32 else 1, 1 if sys.byteorder == "little" else 2, 0)


def may_mount() -> bool:
    """Return True if CAP_SYS_ADMIN (bit 21) is in the effective set of this process; False if /proc cannot be read."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith("CapEff:"):
                    return bool(int(line.split()[1], 16) & 1 << 21)
    except (OSError, ValueError, IndexError):
        pass
    return False
