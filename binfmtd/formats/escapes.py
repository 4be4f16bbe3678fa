r"""Magic and mask as text: the kernel's ``\xHH`` escapes.

The kernel's rules (fs/binfmt_misc.c, scanarg and string_unescape_inplace with UNESCAPE_HEX):

* ``\x`` and two hexadecimal digits are one byte.  ``\x`` without two digits is EINVAL.
* Any other backslash is kept, and so is the character after it: two backslashes are two bytes, and the second does not
  begin an escape.
* A field ends at the first NUL or delimiter, and a line at its newline, so these must be escaped.
"""

import re

from binfmtd.errors import FormatError

_ESCAPE = re.compile(rb"\\x([0-9a-fA-F]{2})|\\(?s:.)")
_BROKEN = re.compile(rb"\\x(?![0-9a-fA-F]{2})")
# Bytes with a meaning in the line's syntax: NUL, newline, the delimiter, and the backslash that begins an escape.
_MUST = re.compile(rb"[\x00\n:\\]")
_UNREADABLE = re.compile(rb"[^\x20-\x7e]|[:\\]")


def decode(text: str) -> bytes:
    r"""Return the bytes that ``text`` stands for: an escape its byte, other characters their UTF-8.

    A surrogate escape stands for its byte.  Raises FormatError for a ``\x`` that the kernel would refuse, and for other
    surrogates.
    """
    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise FormatError(f"{text!r} has a character that is not valid text: write bytes as \\xHH") from error
    if broken := _BROKEN.search(raw):
        seen = raw[broken.start() : broken.start() + 4].decode("ascii", "backslashreplace")
        write = "write \\x and two hexadecimal digits, or \\x5cx for a backslash and x"
        raise FormatError(f"{seen} is not an escape: {write}")
    return _ESCAPE.sub(lambda match: bytes.fromhex(match[1].decode()) if match[1] else match[0], raw)


def encode(data: bytes, *, minimal: bool = False) -> bytes:
    """Return the text for ``data``, in printable ASCII.

    With ``minimal``, only the bytes of the line's own syntax are escaped, and all others stay as they are: a line has
    at most 1920 bytes, and an escape takes four for one.
    """
    return (_MUST if minimal else _UNREADABLE).sub(lambda match: b"\\x%02x" % match[0][0], data)
