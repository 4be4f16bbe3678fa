"""Handlers, as the administrator wants them, and the flags that the kernel supports.

Names and paths are ``str``.  The kernel allows bytes that are not UTF-8; they are kept as surrogate escapes.
"""

from enum import Flag
from typing import NamedTuple

from binfmtd.errors import FormatError
from binfmtd.model.match import Match

RESERVED_NAMES = frozenset({"register", "status", ".", ".."})
NAME_BYTES = 255  # NAME_MAX: the kernel refuses a longer name with ENAMETOOLONG


class Flags(Flag):
    """The kernel's flags, in the order in which it prints them (POCF).

    C implies O: the kernel sets and prints both.
    """

    NONE = 0
    P = 1  # preserve argv[0]
    O = 2  # noqa: E741  open the binary and pass a descriptor; the kernel's own letter
    C = 4  # use the credentials of the binary, not of the interpreter
    F = 8  # open the interpreter at registration, and use that file from then on

    @classmethod
    def parse(cls, letters: str) -> "Flags":
        """Read letters in any order.  Raises FormatError for one that is not P, O, C or F."""
        flags = cls.NONE
        for letter in dict.fromkeys(letters):
            if letter not in "POCF":
                raise FormatError(f"flag {letter!r} is not one of P, O, C, F")
            flags |= cls[letter]
        return flags | cls.O if cls.C in flags else flags

    @property
    def letters(self) -> str:
        """The flags as the kernel prints them, in the order POCF."""
        return "".join(letter for letter in "POCF" if Flags[letter] in self)


class Registration(NamedTuple):
    """The part of a line for ``register`` that determines what the entry does: all but the name."""

    match: Match
    interpreter: str
    flags: Flags


class Handler(NamedTuple):
    """One handler of the desired state, with its interpreter chosen."""

    name: str
    registration: Registration
    priority: int = 0
    enabled: bool = True
    architecture: str | None = None
    yields: bool = False  # from "all": not registered if a working foreign entry serves its files


def check_name(name: str) -> None:
    """Raise FormatError unless the kernel accepts ``name`` for an entry and it contains no newline."""
    encoded = name.encode("utf-8", "surrogateescape")
    if not encoded or len(encoded) > NAME_BYTES:
        raise FormatError(f"name {name!r} must have 1 to {NAME_BYTES} bytes")
    if name in RESERVED_NAMES:
        raise FormatError(f"name {name!r} is reserved by binfmt_misc: choose another")
    if any(c in name for c in "/\0\n"):
        raise FormatError(f"name {name!r} must not contain '/', NUL or a newline")
