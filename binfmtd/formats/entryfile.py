"""What an entry's file says.

Source: fs/binfmt_misc.c (entry_status).  ``enabled`` or ``disabled``; ``interpreter PATH``; ``flags: LETTERS``; then
``extension .EXT``, or ``offset N``, ``magic HEX`` and, only where there is one, ``mask HEX``.  Kernels from 7.3 on
print more: any line or flag that is not known makes the registration None, never an error.
"""

from binfmtd.errors import FormatError
from binfmtd.formats.line import to_text
from binfmtd.model.handler import Flags, Registration
from binfmtd.model.match import Extension, Magic, Match


def parse_entry(text: bytes) -> tuple[bool, Registration | None]:
    """Read an entry's file: is it enabled, and what does it do (None: something this version does not know)."""
    lines = text.split(b"\n")
    enabled = lines[0] != b"disabled"
    try:
        return enabled, _registration(lines[1:])
    except (FormatError, ValueError):
        return enabled, None


def _registration(lines: list[bytes]) -> Registration | None:
    found: dict[bytes, bytes] = {}
    for line in lines:
        if line:
            key, _, value = line.partition(b" ")
            if key not in _KEYS or key in found:
                return None
            found[key] = value
    flags = Flags.parse(found[b"flags:"].decode("ascii")) if b"flags:" in found else Flags.NONE
    match: Match
    if b"interpreter" not in found:
        return None
    if b"extension" in found:
        match = Extension(to_text(found[b"extension"].removeprefix(b".")))
    elif b"magic" in found:
        mask = bytes.fromhex(found[b"mask"].decode("ascii")) if b"mask" in found else None
        match = Magic(bytes.fromhex(found[b"magic"].decode("ascii")), mask, int(found.get(b"offset", b"0")))
    else:
        return None
    return Registration(match, to_text(found[b"interpreter"]), flags)


_KEYS = frozenset({b"interpreter", b"flags:", b"extension", b"offset", b"magic", b"mask"})
