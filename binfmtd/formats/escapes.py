r"""Magic and mask as text: the kernel's ``\xHH`` escapes.

What the kernel does (fs/binfmt_misc.c, scanarg and string_unescape_inplace with UNESCAPE_HEX):

* ``\x`` and two hexadecimal digits are one byte.  ``\x`` without two digits is EINVAL.
* Any other backslash stays, and so does the character after it: two backslashes are two bytes, and the second does
  not begin an escape.
* A field ends at the first NUL or delimiter, and a line at its newline, so these must be escaped.
"""

import re

from binfmtd.errors import FormatError

_ESCAPE = re.compile(rb"\\x([0-9a-fA-F]{2})|\\(?s:.)")
_BROKEN = re.compile(rb"\\x(?![0-9a-fA-F]{2})")
# What the line's own syntax takes: NUL, newline, the delimiter, and the backslash that would begin an escape.
_MUST = re.compile(rb"[\x00\n:\\]")
_UNREADABLE = re.compile(rb"[^\x20-\x7e]|[:\\]")


def decode(text: str) -> bytes:
    r"""Return the bytes that ``text`` stands for; other characters are their UTF-8, surrogate escapes their byte.

    Raises FormatError for a ``\x`` that the kernel would refuse.
    """
    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise FormatError(f"{text!r} has a character that is no text: write bytes as \\xHH") from error
    if broken := _BROKEN.search(raw):
        seen = raw[broken.start() : broken.start() + 4].decode("ascii", "backslashreplace")
        raise FormatError(f"{seen} is no escape: write \\x and two hexadecimal digits, or \\x5cx for a backslash and x")
    return _ESCAPE.sub(lambda found: bytes.fromhex(found[1].decode()) if found[1] else found[0], raw)


def encode(data: bytes, *, minimal: bool = False) -> bytes:
    """Return the text for ``data``: printable ASCII throughout.

    ``minimal`` escapes only what must be, since a line has at most 1920 bytes and an escape takes four for one.
    """
    return (_MUST if minimal else _UNREADABLE).sub(lambda found: b"\\x%02x" % found[0][0], data)
