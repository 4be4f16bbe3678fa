"""Guards: which matches would take the host's own programs.

binfmt_misc is asked before the kernel's ELF and script loaders, so a handler that takes native programs takes its own
interpreter too, and every exec fails with ELOOP.
"""

from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from itertools import product
from typing import NamedTuple

from binfmtd.errors import FormatError
from binfmtd.model.handler import Registration
from binfmtd.model.match import HEAD_SIZE, Extension, Magic, Match, overlap, takes
from binfmtd.model.shebang import parse_shebang

# ELF: e_ident's first seven bytes, OSABI (none or Linux), zero padding; e_type (executable or shared); e_machine.
_OSABI = (0, 3)
_E_TYPE = (2, 3)
_IDENTIFYING = (1 << 8 * 20) - 1  # the bytes of a head that say what a file is: up to e_machine
BRICKS = "it takes every program of this host and leads to none that runs: every exec fails (ELOOP)"
_EXEC_STEPS = 6  # fs/exec.c, exec_binprm: a program and five that it leads to, then ELOOP


class NativeHeader(NamedTuple):
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

    def is_of(self, head: bytes) -> bool:
        """Whether a file that begins so is a program of this kind."""
        try:
            return NativeHeader.parse(head) == self
        except FormatError:
            return False

    def programs(self) -> tuple[Magic, ...]:
        """The headers that native programs have, as magics of 20 bytes."""
        return _programs(self)


@cache  # a host has one
def _programs(native: NativeHeader) -> tuple[Magic, ...]:
    order = "little" if native.byte_order == 1 else "big"
    return tuple(
        Magic(
            b"\x7fELF"
            + bytes((native.elf_class, native.byte_order, 1, osabi))
            + bytes(8)
            + e_type.to_bytes(2, order)  # type: ignore[arg-type]  # mypy widens the literal to str
            + native.machine.to_bytes(2, order)  # type: ignore[arg-type]
        )
        for osabi, e_type in product(_OSABI, _E_TYPE)
    )


_SCRIPT = Magic(b"#!")
# How most scripts begin; what follows stands for text that no magic means.
_SCRIPTS = tuple(
    line.ljust(HEAD_SIZE, b"\xff") for line in (b"#!/bin/sh\n", b"#! /bin/sh\n", b"#!/bin/bash\n", b"#!/usr/bin/env ")
)


def takes_native(match: Match, native: NativeHeader, heads: Sequence[bytes] = ()) -> str | None:
    """Say what of the host's own the match takes (``"native programs"``, ``"scripts"``), or None.

    ``heads`` are the first 256 bytes of some programs of this host each, taken as they are.

    A magic that looks only at bytes beyond the identifying ones says nothing about the kind of a file, and passes.
    An AppImage's magic passes as well: it wants a byte in the padding that native programs have as zero.
    """
    if isinstance(match, Extension):
        return None
    if any(takes(match, head) for head in heads):
        return "native programs"
    identifying = match.care & _IDENTIFYING or not match.care
    if identifying and any(overlap(match, program) for program in native.programs()):
        return "native programs"
    touches_first_two = match.care & 0xFFFF or not match.care
    if touches_first_two and overlap(match, _SCRIPT):
        return "scripts"
    return "scripts" if any(takes(match, script) for script in _SCRIPTS) else None


def bricks(
    registration: Registration,
    standing: Sequence[Registration],
    native: NativeHeader,
    heads: Sequence[bytes],
    head_of: Callable[[str], bytes],
) -> bool:
    """Whether an entry that says this stops every exec: follows that of our own program and of another of this host.

    It does so as the kernel would, to the end; to stop one of them (``heads``) is enough.
    The entry is asked first, then those that are ``standing``, newest first.  An extension stops nothing: most programs
    have none.  ``head_of`` answers with the first 256 bytes of a file, or nothing where it cannot be read: then it may
    be the file that F opened, or one of another root than ours, and counts as a program like any other of this host.
    """
    taken = _taken(registration.match, tuple(heads))
    if not taken:  # as mostly, and there may be thousands of others
        return False
    asked = (registration, *standing)
    return any(_leads_nowhere(asked, native, head, head_of) for head in taken)


@lru_cache(maxsize=1 << 15)  # each look asks for every entry, and 20,000 may stand
def _taken(match: Match, heads: tuple[bytes, ...]) -> tuple[bytes, ...]:
    return tuple(head for head in heads if takes(match, head))


def _leads_nowhere(
    asked: Sequence[Registration], native: NativeHeader, own_head: bytes, head_of: Callable[[str], bytes]
) -> bool:
    head, path = own_head, ""
    for _ in range(_EXEC_STEPS):
        taker = next((each for each in asked if takes(each.match, head, path)), None)
        if taker is not None:
            path = taker.interpreter
        elif script := parse_shebang(head):
            path = script.interpreter
        else:
            return not native.is_of(head)
        head = head_of(path) or own_head
    return True
