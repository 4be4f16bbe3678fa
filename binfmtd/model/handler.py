"""What the admin wants: handlers, and the flags that the kernel knows.

Names and paths are ``str``; bytes that are not UTF-8 are kept as surrogate escapes, as the kernel allows them.
"""

from enum import Flag
from typing import NamedTuple

from binfmtd.errors import FormatError
from binfmtd.model.match import Match

RESERVED_NAMES = frozenset({"register", "status", ".", ".."})
NAME_BYTES = 255  # NAME_MAX: the kernel refuses a longer one with ENAMETOOLONG


class Flags(Flag):
    """The kernel's flags, in the order in which it prints them (POCF).

    C implies O: the kernel sets and prints both.
    """

    NONE = 0
    P = 1  # preserve argv[0]
    O = 2  # noqa: E741  open the binary and pass a descriptor; the kernel's own letter
    C = 4  # the credentials of the binary, not of the interpreter
    F = 8  # open the interpreter at registration, and use that file ever after

    @classmethod
    def parse(cls, letters: str) -> "Flags":
        """Read letters in any order; raises FormatError for one that is not P, O, C or F."""
        flags = cls.NONE
        for letter in dict.fromkeys(letters):
            if letter not in "POCF":
                raise FormatError(f"flag {letter!r} is not one of P, O, C, F")
            flags |= cls[letter]
        return flags | cls.O if cls.C in flags else flags

    @property
    def letters(self) -> str:
        """As the kernel prints them."""
        return "".join(letter for letter in "POCF" if Flags[letter] in self)


class Registration(NamedTuple):
    """What is written to ``register``, apart from the name: what an entry does."""

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
    yields: bool = False  # from "all": leaves the architecture to a working foreign entry


def check_name(name: str) -> None:
    """Raise FormatError unless the kernel would take ``name`` for an entry and nobody could mistake it."""
    encoded = name.encode("utf-8", "surrogateescape")
    if not encoded or len(encoded) > NAME_BYTES:
        raise FormatError(f"name {name!r} must have 1 to {NAME_BYTES} bytes")
    if name in RESERVED_NAMES:
        raise FormatError(f"name {name!r} is taken by binfmt_misc itself: choose another")
    if any(c in name for c in "/\0\n"):
        raise FormatError(f"name {name!r} must not contain '/', NUL or a newline")
