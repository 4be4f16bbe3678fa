"""The headers of an ELF file: its machine, its dynamic linker, and the level of x86-64 that it requires.

Source: elf(5), the System V ABI (chapters 4 and 5), and for the kernel's requirements fs/binfmt_elf.c (load_elf_phdrs,
load_elf_binary).  The caller passes a function that reads the file, because PT_INTERP may lie anywhere in it.
"""

import struct
from collections.abc import Callable
from typing import Literal, NamedTuple

from binfmtd.catalog.elf import ELF
from binfmtd.formats.register_line import to_text

Read = Callable[[int, int], bytes]  # offset and size -> the bytes there, fewer at the end of the file

ET_REL, ET_EXEC, ET_DYN, ET_CORE = 1, 2, 3, 4
_PT_LOAD, _PT_INTERP, _PT_GNU_PROPERTY = 1, 3, 0x6474E553
# By EI_CLASS: 1 is 32 bits, 2 is 64.
_HEADER_SIZE = {1: 52, 2: 64}
_E_FLAGS_AT = {1: 36, 2: 48}
_PHENTSIZE = {1: 32, 2: 56}
_P_TYPE_OFFSET_SIZES = {1: "II8xII", 2: "I4xQ16xQQ"}
_P_FLAGS_AT = {1: 24, 2: 4}
_PF_W = 2
_TABLE_BYTES = 65536  # load_elf_phdrs takes no larger table
_PATH_BYTES = 4096  # PATH_MAX
_NOTE_BYTES = 4096
_EM_X86_64, _ISA_NEEDED = 62, 0xC0008002  # x86-64 psABI: GNU_PROPERTY_X86_ISA_1_NEEDED
_LEVELS = ((8, "v4"), (4, "v3"), (2, "v2"))


class LoadedSegment(NamedTuple):
    """A PT_LOAD that has bytes in the file, all numbers in bytes; the memory beyond ``in_file`` is cleared."""

    offset: int
    in_file: int
    in_memory: int
    writable: bool

    @property
    def end(self) -> int:
        """The offset in the file where it ends."""
        return self.offset + self.in_file


class ElfFile(NamedTuple):
    """The values of the headers.

    ``linker`` is PT_INTERP's path, None for a static file.  ``damage`` is the reason why no kernel loads it.  ``level``
    is the level of x86-64 that it declares as required.  The kernel does not check that the file contains all of
    ``loads``.
    """

    bits: Literal[32, 64]
    byte_order: Literal["little", "big"]
    osabi: int
    e_type: int
    machine: int
    e_flags: int = 0
    entry: int = 0
    linker: str | None = None
    level: str | None = None
    damage: str | None = None
    loads: tuple[LoadedSegment, ...] = ()


def parse_elf(read: Read) -> ElfFile | None:  # noqa: PLR0911  each case has its own answer
    """Read the headers; return None for a file that is not ELF."""
    head = read(0, 64)
    if len(head) < 20 or not head.startswith(ELF) or head[4] not in _HEADER_SIZE or head[5] not in (1, 2):
        return None
    kind, order = head[4], "<" if head[5] == 1 else ">"
    e_type, machine = struct.unpack_from(order + "HH", head, 16)

    def elf_file(flags: int = 0, entry: int = 0, damage: str | None = None) -> ElfFile:
        bits: Literal[32, 64] = 32 if kind == 1 else 64
        byte_order: Literal["little", "big"] = "little" if order == "<" else "big"
        return ElfFile(bits, byte_order, head[7], e_type, machine, flags, entry, damage=damage)

    if len(head) < _HEADER_SIZE[kind]:
        return elf_file(damage="it is cut off within its ELF header")
    word = "I" if kind == 1 else "Q"
    entry, table = struct.unpack_from(f"{order}2{word}", head, 24)
    at = _E_FLAGS_AT[kind]
    flags, _, phentsize, count = struct.unpack_from(order + "IHHH", head, at)
    if e_type not in (ET_EXEC, ET_DYN):
        return elf_file(flags, entry)
    if phentsize != _PHENTSIZE[kind] or not 0 < phentsize * count <= _TABLE_BYTES:
        return elf_file(flags, entry, damage="its program headers have a wrong size or number")
    segments = read(table, phentsize * count)
    if len(segments) < phentsize * count:
        return elf_file(flags, entry, damage="it is cut off within its program headers")
    linker = level = None
    loads = []
    for place in range(0, len(segments), phentsize):
        segment, offset, size, in_memory = struct.unpack_from(order + _P_TYPE_OFFSET_SIZES[kind], segments, place)
        if segment == _PT_LOAD:
            (access,) = struct.unpack_from(order + "I", segments, place + _P_FLAGS_AT[kind])
            loads += [LoadedSegment(offset, size, in_memory, bool(access & _PF_W))] if size else []
        elif segment == _PT_INTERP and linker is None:
            path = read(offset, size) if 2 <= size <= _PATH_BYTES else b""
            if len(path) < size or not path.endswith(b"\0"):
                return elf_file(flags, entry, damage="its PT_INTERP, which names its dynamic linker, contains no path")
            linker = to_text(path.partition(b"\0")[0])
        elif segment == _PT_GNU_PROPERTY and machine == _EM_X86_64:
            level = _level(read(offset, min(size, _NOTE_BYTES)), 8 if kind == 2 else 4)
    return elf_file(flags, entry)._replace(linker=linker, level=level, loads=tuple(loads))


def _level(notes: bytes, align: int) -> str | None:
    """Return the level of x86-64 among the properties of a GNU note (NT_GNU_PROPERTY_TYPE_0), or None."""
    if notes[4:16] != notes[4:8] + struct.pack("<I", 5) + b"GNU\0":
        return None
    place = 16
    while place + 8 <= len(notes):
        kind, size = struct.unpack_from("<II", notes, place)
        if kind == _ISA_NEEDED and size == 4 and place + 12 <= len(notes):
            (needed,) = struct.unpack_from("<I", notes, place + 8)
            return next((level for bit, level in _LEVELS if needed & bit), None)
        place += 8 + (size + align - 1) // align * align
    return None
