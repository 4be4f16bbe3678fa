"""The first line of a script, as the kernel reads it.

Source: fs/binfmt_script.c, load_script.

* Only the first 256 bytes of the file count, and a newline only if no NUL comes before it.
* Without a newline the interpreter's path has to end within them, by a blank or a NUL: a path that may be cut off is
  not executed.  The argument may be cut off.
* There is one argument, blanks within it and all; blanks at the end of the line do not count, but where the line has no
  end they are followed by an empty argument.  A carriage return is no blank: it becomes a part of the path or of the
  argument.
"""

from typing import NamedTuple

from binfmtd.model.match import HEAD_SIZE

_LAST = HEAD_SIZE - 1  # the kernel ends the text here where there is no newline
_BLANKS = b" \t"


class Shebang(NamedTuple):
    """What ``#!`` names.  The path may be relative, or even empty: then it leads nowhere."""

    interpreter: str
    argument: str | None = None


def parse_shebang(head: bytes) -> Shebang | None:
    """Read the first line; None for what is no script to the kernel."""
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
