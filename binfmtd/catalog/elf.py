"""The derivation of a match from an ELF header.

The rules of the file format (System V ABI, chapter 4; Linux: include/uapi/linux/elf.h):

* e_ident is 16 bytes: the magic number, EI_CLASS, EI_DATA, EI_VERSION, EI_OSABI, EI_ABIVERSION and seven of padding.
* The fields after it are in the byte order of EI_DATA: e_type, e_machine, e_version, three addresses or offsets of the
  class's size, then e_flags.
* A program has e_type 2 (ET_EXEC) or 3 (ET_DYN, position independent): they differ in the lowest bit.

A match is derived field by field: the value goes into the magic, and the bits that count go into the mask.
"""

import struct
from typing import Literal, NamedTuple

from binfmtd.model.match import Magic

ELF = b"\x7fELF"
EV_CURRENT = 1
OSABI_NONE = 0
ET_EXEC = 2


class ElfHeader(NamedTuple):
    """The fields by which the programs of one architecture differ from those of another; names as in the ABI."""

    bits: Literal[32, 64]
    byte_order: Literal["little", "big"]
    e_machine: int
    e_flags: int = 0

    @property
    def ei_class(self) -> int:
        """ELFCLASS32 or ELFCLASS64."""
        return 1 if self.bits == 32 else 2

    @property
    def ei_data(self) -> int:
        """ELFDATA2LSB or ELFDATA2MSB."""
        return 1 if self.byte_order == "little" else 2

    @property
    def order(self) -> str:
        """The byte order as the struct module writes it."""
        return "<" if self.byte_order == "little" else ">"

    @property
    def word(self) -> str:
        """An address as the struct module writes it."""
        return "I" if self.bits == 32 else "Q"


class Compared(NamedTuple):
    """The bits of each header field that a match compares: one mask a field.

    The defaults are the general rule: up to e_machine everything counts but EI_OSABI.  A non-zero ``e_flags`` extends
    the match to that field, and so to e_version before it.
    """

    ei_data: int = 0xFF
    ei_version: int = 0xFF
    ei_osabi: int = 0x00
    ei_abiversion: int = 0xFF
    e_machine: int = 0xFFFF
    e_flags: int = 0


GENERAL_RULE = Compared()


def derive_match(header: ElfHeader, compared: Compared = GENERAL_RULE) -> Magic:
    """Return the magic and mask that take an architecture's programs, position independent ones too."""
    # The mask is packed like the header itself, so the lowest bit of e_type is in the right byte in either order.
    layout = struct.Struct(f"{header.order}4s5B7s2H")
    magic = layout.pack(
        ELF, header.ei_class, header.ei_data, EV_CURRENT, OSABI_NONE, 0, bytes(7), ET_EXEC, header.e_machine
    )
    mask = layout.pack(
        b"\xff" * 4,
        0xFF,
        compared.ei_data,
        compared.ei_version,
        compared.ei_osabi,
        compared.ei_abiversion,
        b"\xff" * 7,
        0xFFFE,
        compared.e_machine,
    )
    if compared.e_flags:
        # e_version, then e_entry, e_phoff and e_shoff, which differ from program to program, then e_flags
        tail = struct.Struct(f"{header.order}I{3 * header.bits // 8}xI")
        magic += tail.pack(EV_CURRENT, header.e_flags & compared.e_flags)
        mask += tail.pack(0xFFFFFFFF, compared.e_flags)
    return Magic(magic, mask)
