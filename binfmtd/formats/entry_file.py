"""The text of an entry's file in binfmt_misc.

Source: fs/binfmt_misc.c (entry_status).  The lines are ``enabled`` or ``disabled``; ``interpreter PATH``;
``flags: LETTERS``; then ``extension .EXT``, or ``offset N``, ``magic HEX`` and, only if there is one, ``mask HEX``.
Kernels from 7.3 on print more: an unknown line or flag makes the registration None, never an error.  So does another
order of the lines: a path may contain a newline, and the text after it would pass for the kernel's own.
"""

from binfmtd.errors import FormatError
from binfmtd.formats.register_line import to_text
from binfmtd.model.handler import Flags, Registration
from binfmtd.model.match import Extension, Magic, Match


def parse_entry(text: bytes) -> tuple[bool, Registration | None]:
    """Return if an entry is enabled, and its registration; None if the text has something unknown to this version."""
    lines = text.removesuffix(b"\n").split(b"\n")
    enabled = lines[0] != b"disabled"
    try:
        return enabled, _registration(lines[1:])
    except (FormatError, ValueError):
        return enabled, None


def _registration(lines: list[bytes]) -> Registration | None:
    values: dict[bytes, bytes] = {}
    for line in lines:
        key, _, value = line.partition(b" ")
        if key in values:
            return None
        values[key] = value
    match: Match
    if tuple(values) == _WITH_EXTENSION:
        match = Extension(to_text(values[b"extension"].removeprefix(b".")))
    elif tuple(values) in (_WITH_MAGIC, (*_WITH_MAGIC, b"mask")):
        mask = bytes.fromhex(values[b"mask"].decode("ascii")) if b"mask" in values else None
        match = Magic(bytes.fromhex(values[b"magic"].decode("ascii")), mask, int(values[b"offset"]))
    else:
        return None
    return Registration(match, to_text(values[b"interpreter"]), Flags.parse(values[b"flags:"].decode("ascii")))


_WITH_EXTENSION = (b"interpreter", b"flags:", b"extension")
_WITH_MAGIC = (b"interpreter", b"flags:", b"offset", b"magic")
