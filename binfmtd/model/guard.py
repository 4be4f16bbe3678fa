"""Guards: find matches that would take the host's own programs.

The kernel tries binfmt_misc before its ELF and script loaders.  So a handler that takes native programs takes its own
interpreter, too, and every exec fails with ELOOP.
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
_IDENTIFYING = (1 << 8 * 20) - 1  # the first 20 bytes identify the kind of a file: up to e_machine
BREAKS_EXEC = (
    "it takes this host's own programs, and no interpreter can run for them: every exec fails (ELOOP or ENOEXEC)"
)
_EXEC_STEPS = 6  # fs/exec.c, exec_binprm: a program and five interpreters, then ELOOP


class NativeHeader(NamedTuple):
    """The fields that the ELF headers of this host's own programs have in common."""

    elf_class: int  # 1: 32 bits, 2: 64 bits
    byte_order: int  # 1: little endian, 2: big endian
    machine: int  # e_machine

    @classmethod
    def parse(cls, head: bytes) -> "NativeHeader":
        """Read the header of a program that runs here.  Raises FormatError if it is no ELF file."""
        if len(head) < 20 or head[:4] != b"\x7fELF" or head[5] not in (1, 2):
            raise FormatError("not an ELF program")
        return cls(head[4], head[5], int.from_bytes(head[18:20], "little" if head[5] == 1 else "big"))

    def is_of(self, head: bytes) -> bool:
        """Return True if a file that begins with ``head`` is a program of this kind."""
        try:
            return NativeHeader.parse(head) == self
        except FormatError:
            return False

    def programs(self) -> tuple[Magic, ...]:
        """Return the headers that native programs can have, as magics of 20 bytes."""
        return _programs(self)


@cache  # a host has one kind
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
# Usual first lines of scripts.  The bytes 0xff stand for the text that follows: no magic is meant for it.
_SCRIPTS = tuple(
    line.ljust(HEAD_SIZE, b"\xff") for line in (b"#!/bin/sh\n", b"#! /bin/sh\n", b"#!/bin/bash\n", b"#!/usr/bin/env ")
)


def takes_native(match: Match, native: NativeHeader, heads: Sequence[bytes] = ()) -> str | None:
    """Return what the match takes of the host's own files (``"native programs"``, ``"scripts"``), or None.

    ``heads`` are the first 256 bytes of each of some programs of this host, and are compared byte by byte.

    A magic that compares only bytes after the first 20 does not identify the kind of a file, so it is not compared with
    the header of native programs.  An AppImage's magic passes as well: it requires a byte other than zero in the
    padding, which is zero in native programs.
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


def breaks_exec(
    registration: Registration,
    standing: Callable[[], Sequence[Registration]],
    native: NativeHeader,
    heads: Sequence[bytes],
    head_of: Callable[[str], bytes],
) -> bool:
    """Return True if an entry with this registration would break every exec.

    This follows, as the kernel would, the exec of our own program and of another program of this host (``heads``), to
    the end.  One that fails is enough.  The entry is tried first, then those that ``standing`` returns, newest first;
    it is called only if the entry takes such a program.  An extension breaks nothing, since most programs have none.

    ``head_of`` returns the first 256 bytes of a file, or nothing if the file cannot be read.  Such a file may be one
    that F opened, or one in another root than ours, so it counts as a program of this host.
    """
    taken = programs_taken(registration.match, tuple(heads))
    if not taken:  # the usual case; there may be thousands of entries
        return False
    asked = (registration, *standing())
    return any(_leads_nowhere(asked, native, head, head_of) for head in taken)


@lru_cache(maxsize=1 << 15)  # each pass checks every entry, and there may be 20,000
def programs_taken(match: Match, heads: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Return those of the ``heads``, each the first 256 bytes of a program, that the match takes."""
    return tuple(head for head in heads if takes(match, head))


def _leads_nowhere(
    asked: Sequence[Registration], native: NativeHeader, own_head: bytes, head_of: Callable[[str], bytes]
) -> bool:
    head, path = own_head, ""
    for _ in range(_EXEC_STEPS):
        taker = next((registration for registration in asked if takes(registration.match, head, path)), None)
        if taker is not None:
            path = taker.interpreter
        elif script := parse_shebang(head):
            path = script.interpreter
        else:
            return not native.is_of(head)
        head = head_of(path) or own_head
    return True
