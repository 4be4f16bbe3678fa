"""The emulator at a path, and the facts about this host, as binfmtd/catalog/known_faults.py needs them.

Nothing is run.  QEMU's file contains the text that ``--version`` prints, like ``qemu-aarch64 version 10.0.13``, so its
version is found by a search: some 6 ms for the 16 MB of Debian's.
"""

import os
import re
import stat

from binfmtd.catalog.known_faults import Emulation, Emulator, HostConditions
from binfmtd.formats.elf import ET_EXEC, parse_elf
from binfmtd.host.facts import kernel_version
from binfmtd.host.interpreters import read_head, required_loader
from binfmtd.host.qemu_versions import is_qemu
from binfmtd.model.handler import Flags

_BY_NAME = (("FEX", Emulator.FEX), ("box64", Emulator.BOX64))
_VERSION = re.compile(rb"qemu-\w{1,20} version (\d{1,4}(?:\.\d{1,4}){1,3})[^\d.]")  # never cut off by a block's end
_LONGEST = 64  # bytes of a text that _VERSION matches
_BLOCK = 1 << 20
_MOST_BLOCKS = 256  # a larger file is no emulator
_RANDOMIZE = "/proc/sys/kernel/randomize_va_space"


def emulation(path: str, flags: Flags, version: tuple[int, ...] | None = None) -> Emulation | None:
    """Return what the file at an entry's interpreter path is; None if it is no emulator with known faults.

    ``version`` is the one that the emulator printed; without it, the version in QEMU's file counts.
    """
    if is_qemu(path):
        found = version_in(path) if version is None else version
        head = read_head(path)
        elf = parse_elf(lambda offset, size: head[offset : offset + size])
        fixed_address = elf is not None and elf.e_type == ET_EXEC
        return Emulation(Emulator.QEMU, found, fixed_address, required_loader(path) is not None, flags)
    for name in map(os.path.basename, (path, os.path.realpath(path))):
        for beginning, emulator in _BY_NAME:
            if name.startswith(beginning):
                return Emulation(emulator, dynamic=required_loader(path) is not None, flags=flags)
    return None


def version_in(path: str) -> tuple[int, ...]:
    """Return the version of QEMU that a file contains; () if it contains none, or cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (OSError, ValueError):
        return ()
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return ()
        end = b""
        for _ in range(_MOST_BLOCKS):
            if not (block := os.read(descriptor, _BLOCK)):
                break
            if found := _VERSION.search(end + block):
                return tuple(map(int, found[1].split(b".")))
            end = block[-_LONGEST:]
    except OSError:
        pass
    finally:
        os.close(descriptor)
    return ()


def version_text(path: str) -> str:
    """Return that version as it is written, like ``10.0.13``; "" if there is none."""
    return ".".join(map(str, version_in(path)))


def host_conditions() -> HostConditions:
    """Return the facts about this host on which known faults depend."""
    from binfmtd.host.security_modules import selinux_enforces

    try:
        with open(_RANDOMIZE, encoding="ascii") as file:
            randomized = file.read().strip() != "0"
    except (OSError, UnicodeDecodeError):
        randomized = False
    machine, page_size = os.uname().machine, os.sysconf("SC_PAGE_SIZE")
    return HostConditions(machine, kernel_version(), page_size, randomized, selinux_enforces())
