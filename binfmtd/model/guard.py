"""Guards: which matches would take the host's own programs.

binfmt_misc is asked before the kernel's ELF and script loaders, so a handler that takes native programs takes its own
interpreter too, and every exec fails with ELOOP.
"""

from dataclasses import dataclass
from itertools import product

from binfmtd.errors import FormatError
from binfmtd.model.match import HEAD_SIZE, Extension, Magic, Match, overlap, takes

# ELF: e_ident's first seven bytes, OSABI (none or Linux), zero padding; e_type (executable or shared); e_machine.
_OSABI = (0, 3)
_E_TYPE = (2, 3)
_IDENTIFYING = (1 << 8 * 20) - 1  # the bytes of a head that say what a file is: up to e_machine


@dataclass(frozen=True, slots=True)
class NativeHeader:
    """What the ELF headers of this host's own programs have in common."""

    elf_class: int  # 1: 32 bits, 2: 64 bits
    byte_order: int  # 1: little endian, 2: big endian
    machine: int  # e_machine

    @classmethod
    def parse(cls, head: bytes) -> "NativeHeader":
        """Read the header of a program that runs here; raises FormatError if it is no ELF file."""
        if len(head) < 20 or head[:4] != b"\x7fELF" or head[5] not in (1, 2):
            raise FormatError("not an ELF program")
        return cls(head[4], head[5], int.from_bytes(head[18:20], "little" if head[5] == 1 else "big"))

    def programs(self) -> tuple[Magic, ...]:
        """The headers that native programs have, as magics of 20 bytes."""
        order = "little" if self.byte_order == 1 else "big"
        return tuple(
            Magic(
                b"\x7fELF"
                + bytes((self.elf_class, self.byte_order, 1, osabi))
                + bytes(8)
                + e_type.to_bytes(2, order)  # type: ignore[arg-type]  # mypy widens the literal to str
                + self.machine.to_bytes(2, order)  # type: ignore[arg-type]
            )
            for osabi, e_type in product(_OSABI, _E_TYPE)
        )


_SCRIPT = Magic(b"#!")
# How most scripts begin; what follows stands for text that no magic means.
_SCRIPTS = tuple(
    line.ljust(HEAD_SIZE, b"\xff") for line in (b"#!/bin/sh\n", b"#! /bin/sh\n", b"#!/bin/bash\n", b"#!/usr/bin/env ")
)


def takes_native(match: Match, native: NativeHeader, own_head: bytes = b"") -> str | None:
    """Say what of the host's own the match takes (``"native programs"``, ``"scripts"``), or None.

    ``own_head`` are the first 256 bytes of a program of this host, taken as they are.

    A magic that looks only at bytes beyond the identifying ones says nothing about the kind of a file, and passes.
    An AppImage's magic passes as well: it wants a byte in the padding that native programs have as zero.
    """
    if isinstance(match, Extension):
        return None
    if own_head and takes(match, own_head):
        return "native programs"
    identifying = match.care & _IDENTIFYING or not match.care
    if identifying and any(overlap(match, program) for program in native.programs()):
        return "native programs"
    touches_first_two = match.care & 0xFFFF or not match.care
    if touches_first_two and overlap(match, _SCRIPT):
        return "scripts"
    return "scripts" if any(takes(match, script) for script in _SCRIPTS) else None


def bricks(match: Match, interpreter: tuple[str, bytes], own: tuple[str, bytes]) -> bool:
    """Whether an entry with this match stops every exec: it takes its own interpreter and our own executable.

    Both are given as path and first 256 bytes.
    """
    return takes(match, interpreter[1], interpreter[0]) and takes(match, own[1], own[0])
