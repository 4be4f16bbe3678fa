"""Matches: which files a handler takes, by a magic at an offset or by an extension, and how two matches relate.

The rules of the kernel (Documentation/admin-guide/binfmt-misc.rst and fs/binfmt_misc.c):

* The kernel reads the first 256 bytes of a file (BINPRM_BUF_SIZE), padded with zeros, and compares
  ``(byte ^ magic) & mask`` at ``offset``; bits outside the mask do not matter.
* ``offset + len(magic)`` is at most 256, and mask and magic have the same length; no mask means all ones.
* An extension is the text after the last dot of the file's name, compared case-sensitively.
"""

from functools import cached_property
from typing import NamedTuple, Self

from binfmtd.errors import FormatError

HEAD_SIZE = 256


class _Bytes(NamedTuple):
    magic: bytes
    mask: bytes | None
    offset: int


class Magic(_Bytes):
    """Bytes at an offset, compared under a mask.

    Raises FormatError if the kernel could not store them.
    """

    def __new__(cls, magic: bytes, mask: bytes | None = None, offset: int = 0) -> Self:  # noqa: D102  as __init__
        if not magic:
            raise FormatError("magic is empty: give at least one byte")
        if offset < 0:
            raise FormatError(f"offset {offset} is before the file's first byte: write 0 or more")
        if offset + len(magic) > HEAD_SIZE:
            raise FormatError(
                f"{len(magic)} bytes of magic at offset {offset} end beyond byte {HEAD_SIZE}, but the kernel reads no "
                "further: shorten the magic or lower the offset"
            )
        if mask is not None and len(mask) != len(magic):
            raise FormatError(f"magic has length {len(magic)} and mask {len(mask)}: make them the same length")
        return super().__new__(cls, magic, mask, offset)

    # Mask and magic as integers over the whole head, so that each comparison below is one operation.

    @cached_property
    def care(self) -> int:
        """The mask: the bits that are compared."""
        mask = b"\xff" * len(self.magic) if self.mask is None else self.mask
        return int.from_bytes(mask, "little") << (8 * self.offset)

    @cached_property
    def bits(self) -> int:
        """The values with which these bits are compared."""
        return int.from_bytes(self.magic, "little") << (8 * self.offset) & self.care


class _Text(NamedTuple):
    text: str


class Extension(_Text):
    """The text after the last dot of a file's name, without the dot.

    Raises FormatError if the kernel could not store it.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:  # noqa: D102  as __init__
        if not text or "/" in text or "\0" in text or "\n" in text:
            raise FormatError(f"extension {text!r} must be a non-empty text without '/', NUL and newline")
        return super().__new__(cls, text)


Match = Magic | Extension


def match_of(
    magic: bytes | None = None, mask: bytes | None = None, offset: int | None = None, extension: str | None = None
) -> Match:
    """Return the magic or the extension that the arguments describe.  Raises FormatError unless they describe one."""
    if (magic is None) == (extension is None):
        raise FormatError("give exactly one of magic and extension")
    if magic is not None:
        return Magic(magic, mask, offset or 0)
    for key, value in (("mask", mask), ("offset", offset)):
        if value is not None:
            raise FormatError(f"{key} is allowed only with magic, not with extension: remove {key}")
    return Extension(extension or "")


def same(a: Match, b: Match) -> bool:
    """Return True if the two take exactly the same files, even if they are written differently."""
    if isinstance(a, Magic) and isinstance(b, Magic):
        return a.bits == b.bits and a.care == b.care
    return a == b


def overlap(a: Match, b: Match) -> bool:
    """Return True if there can be a file that both take.

    For a magic and an extension there always can be: a file with those bytes and that name.
    """
    if isinstance(a, Magic) and isinstance(b, Magic):
        return not (a.bits ^ b.bits) & a.care & b.care
    if isinstance(a, Extension) and isinstance(b, Extension):
        return a.text == b.text
    return True


def takes(match: Match, head: bytes, file_name: str = "") -> bool:
    """Return True if the match takes a file of this name that begins with ``head`` (256 bytes at most count)."""
    if isinstance(match, Magic):
        return not (int.from_bytes(head[:HEAD_SIZE], "little") ^ match.bits) & match.care
    _, dot, extension = file_name.rpartition(".")
    return bool(dot) and extension == match.text


def takes_plain(match: Match, other: Match) -> bool:
    """Return True if ``match`` takes the plainest file that ``other`` is for: its magic, and zeros everywhere else."""
    if isinstance(match, Magic) and isinstance(other, Magic):
        return not (other.bits ^ match.bits) & match.care
    return match == other
