"""Parse the first line of a script as the kernel does.

Source: fs/binfmt_script.c, load_script.

* Only the first 256 bytes of the file count, and a newline counts only if no NUL precedes it.
* Without a newline the interpreter's path must end within these bytes, with a blank or a NUL: the kernel does not
  execute a path that may be cut off.  The argument may be cut off.
* There is at most one argument, which may contain blanks.  Blanks before the newline do not count.  Where no newline
  ends the line they do: blanks after the path are then followed by an empty argument.
* A carriage return is not a blank: it becomes part of the path or of the argument.

Example: ``#! /usr/bin/env python3 -u`` names ``/usr/bin/env``, with the argument ``python3 -u``.
"""

from typing import NamedTuple

from binfmtd.model.match import HEAD_SIZE

_LAST = HEAD_SIZE - 1  # without a newline, the kernel ends the text here
_BLANKS = b" \t"


class Shebang(NamedTuple):
    """The interpreter that ``#!`` names, and its argument.  The path may be relative, or even empty."""

    interpreter: str
    argument: str | None = None


def parse_shebang(head: bytes) -> Shebang | None:
    """Return the interpreter and the argument, or None if the kernel does not take the file for a script."""
    if not head.startswith(b"#!"):
        return None
    head = head[:HEAD_SIZE].ljust(HEAD_SIZE, b"\0")
    end = head.partition(b"\0")[0].find(b"\n")
    if end < 0:
        begin = _skip_blanks(head, 2)
        if begin is None or not any(byte in b" \t\0" for byte in head[begin:]):
            return None
        end = _LAST
    while head[end - 1] in _BLANKS:
        end -= 1
    begin = _skip_blanks(head, 2)
    if begin is None or begin >= end:
        return None
    line = head[begin:end]
    separator = next((place for place, byte in enumerate(line) if byte in b" \t\0"), len(line))
    argument = None
    if line[separator : separator + 1] not in (b"", b"\0"):
        argument = _text(line[separator:].lstrip(_BLANKS).partition(b"\0")[0])
    return Shebang(_text(line[:separator]), argument)


def _skip_blanks(head: bytes, begin: int) -> int | None:
    return next((place for place in range(begin, HEAD_SIZE) if head[place] not in _BLANKS), None)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
