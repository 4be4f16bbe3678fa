r"""Handlers as the config's TOML, for ``binfmtd import``.

This writer has only this one shape.  It puts magic and mask in single quotes, as ``\x7fELF`` and not ``\\x7fELF``, and
adds a comment with the origin of each handler.  tomli-w can do neither, and would be one more dependency.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from binfmtd.errors import FormatError
from binfmtd.formats.escapes import encode
from binfmtd.formats.register_line import check_interpreter, encode_line
from binfmtd.model.handler import Registration
from binfmtd.model.match import Extension
from binfmtd.model.stand_in import is_stand_in

_BARE = re.compile(r"[A-Za-z0-9_-]+")


class Found(NamedTuple):
    """An entry, and its origin: a file and line, or the kernel."""

    name: str
    registration: Registration
    origin: str
    enabled: bool = True


def render_toml(handlers: Iterable[Found]) -> str:
    """Return a config that declares exactly these handlers.

    Raises FormatError, which names the entry, for one that ``check_toml`` refuses.
    """
    tables = []
    for entry in handlers:
        try:
            check_toml(entry.name, entry.registration)
        except FormatError as error:
            raise FormatError(f"entry {entry.name!r}: {error}") from error
        tables.append(_table(entry))
    return "".join([_HEAD, *tables])


def check_toml(name: str, registration: Registration) -> None:
    """Raise FormatError if a TOML config could not declare this entry."""
    match = registration.match
    extension = match.text if isinstance(match, Extension) else ""
    for text in (name, registration.interpreter, extension):
        if not _is_text(text):
            raise FormatError(f"{text!r} is not UTF-8, which TOML requires: rename it")
    if is_stand_in(name):
        raise FormatError("its name is reserved for binfmtd's stand-ins: rename it")
    if "." in extension:
        compares = "the kernel compares only the text after the last dot of a file's name"
        raise FormatError(f"extension {extension!r} never matches, because {compares}: remove this entry")
    check_interpreter(registration.interpreter)
    encode_line(name, registration)


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_HEAD = """\
# Imported by binfmtd: only these handlers. With `architectures = ["all"]`, each emulator on this host gets one, too.
architectures = []
"""


def _table(entry: Found) -> str:
    match = entry.registration.match
    lines = ["", f"# {''.join(c if c.isprintable() else '?' for c in entry.origin)}"]
    lines.append(f"[handlers.{entry.name if _BARE.fullmatch(entry.name) else quoted(entry.name)}]")
    if isinstance(match, Extension):
        lines.append(f"extension = {quoted(match.text)}")
    else:
        lines.append(f"magic = {_escaped(match.magic)}")
        if match.mask is not None:
            lines.append(f"mask = {_escaped(match.mask)}")
        if match.offset:
            lines.append(f"offset = {match.offset}")
    lines.append(f"interpreter = {quoted(entry.registration.interpreter)}")
    if letters := entry.registration.flags.letters:
        lines.append(f"flags = {quoted(letters)}")
    if not entry.enabled:
        lines.append("enabled = false")
    return "".join(line + "\n" for line in lines)


def _escaped(data: bytes) -> str:
    text = encode(data).decode("ascii").replace("'", "\\x27")  # a literal string cannot contain a single quote
    return f"'{text}'"


def quoted(text: str) -> str:
    r"""Return a basic string: TOML's escapes are \", \\ and \uXXXX (toml.io, v1.0.0, String)."""
    return '"' + "".join(map(_character, text)) + '"'


def _character(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"
