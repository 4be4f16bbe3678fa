"""The smallest program of an architecture, which shows if the architecture's programs run, and by what."""

import struct

from binfmtd.catalog.architecture import Architecture
from binfmtd.catalog.elf import ELF, ET_EXEC, EV_CURRENT, OSABI_NONE

_PT_LOAD = 1
_READ_EXECUTE = 5
_ADDRESS = 0x100000  # free in each emulator's address space, and above the kernel's mmap_min_addr
_ALIGN = 0x10000  # 64 KiB, the largest page size that distributions use: the file loads under any smaller one


def tiny_program(architecture: Architecture) -> bytes:
    """Return an executable file, static and of 90 to 132 bytes, that does nothing but exit with status 42.

    It consists of an ELF header, one program header that loads the whole file, and the architecture's machine code.
    """
    header, code = architecture.header, architecture.exit42
    elf = struct.Struct(f"{header.order}16s2HI3{header.word}I6H")
    segment = struct.Struct(f"{header.order}{'8I' if header.bits == 32 else '2I6Q'}")
    start = elf.size + segment.size
    ident = ELF + bytes((header.ei_class, header.ei_data, EV_CURRENT, OSABI_NONE)) + bytes(8)
    # e_type, e_machine, e_version, e_entry, e_phoff, e_shoff, e_flags, e_ehsize, e_phentsize, e_phnum; no sections
    program = elf.pack(
        ident,
        ET_EXEC,
        header.e_machine,
        EV_CURRENT,
        _ADDRESS + start,
        elf.size,
        0,
        header.e_flags,
        elf.size,
        segment.size,
        1,
        0,
        0,
        0,
    )
    size = start + len(code)
    # p_offset, p_vaddr, p_paddr, p_filesz, p_memsz; p_flags comes after them in 32 bits and before them in 64
    extent = (0, _ADDRESS, _ADDRESS, size, size)
    if header.bits == 32:
        program += segment.pack(_PT_LOAD, *extent, _READ_EXECUTE, _ALIGN)
    else:
        program += segment.pack(_PT_LOAD, _READ_EXECUTE, *extent, _ALIGN)
    return program + code
