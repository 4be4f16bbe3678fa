r"""Debian's format files: /usr/share/binfmts/NAME, which update-binfmts imports.

update-binfmts reads such a file as follows (binfmt-support 2.2.2: get_import and act_enable of src/update-binfmts.c,
binfmt_new of src/format.c; tried with the real program):

* Each line is a key, one space and a value.  Blanks at its end are removed, the key's case does not matter, the last of
  two equal keys counts, and an unknown key is ignored.  So a line that begins with ``#`` serves as a comment.  The
  file's name is the entry's.
* ``package`` is required, and so is exactly one of ``magic`` and ``extension``.  ``mask`` and ``offset`` are allowed
  with ``magic`` only.
* ``credentials``, ``preserve`` and ``fix_binary`` set the flags C, P and F if their value is exactly ``yes``.  There is
  no key for O.
* update-binfmts registers ``:NAME:TYPE:OFFSET:MAGIC:MASK:INTERPRETER:FLAGS`` and a newline.  No field may contain a
  colon, and the text of magic and mask is passed to the kernel unchanged.
* With a ``detector``, or if two formats have the same magic, its own wrapper becomes the interpreter, which chooses a
  program for each file; F is refused then.  The kernel has no part in that.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from binfmtd.errors import FormatError
from binfmtd.formats.binfmt_d import GENERATED, Problem
from binfmtd.formats.escapes import decode, encode
from binfmtd.formats.register_line import LINE_BYTES, check_interpreter, to_bytes, to_text
from binfmtd.model.handler import Flags, Registration, check_name
from binfmtd.model.match import Extension, Magic, Match

PACKAGE = "binfmtd"
"""The package in the files that ``render_format`` writes: update-binfmts replaces only formats of the same package."""

_FLAGS = {"credentials": Flags.C, "preserve": Flags.P, "fix_binary": Flags.F}
KEYS = ("package", "interpreter", "magic", "offset", "mask", "extension", "detector", *_FLAGS)
SAYS = Flags.P | Flags.C | Flags.F
"""The flags that have a key.  O has none, and is set only together with C."""

_BLANKS = b" \t\n\v\f\r"  # isspace(3) in the C locale
_OFFSET = re.compile(r"[0-9]{1,3}")
_BLANK = re.compile(rb"[ \t\v\f\r]")


class FormatFile(NamedTuple):
    """The contents of one format file."""

    registration: Registration
    package: str
    detector: str | None  # a program that must accept a file before the interpreter gets it


def is_format(text: bytes) -> bool:
    """Return True if a file looks like a format file: its first line that is no comment begins with a key."""
    for line in text.split(b"\n"):
        if line.strip() and not line.startswith(b"#"):
            return to_text(line.partition(b" ")[0].strip().lower()) in KEYS
    return False


def parse_format(text: bytes) -> tuple[FormatFile | None, tuple[Problem, ...]]:
    """Read a whole file; return None in its place if update-binfmts could not use it.

    The problems are the reasons for that, and the lines that are ignored.
    """
    values: dict[str, str] = {}
    lines: dict[str, int] = {}
    problems: list[Problem] = []
    unknown: list[tuple[int, str]] = []
    for number, line in enumerate(text.split(b"\n"), 1):
        name, _, value = line.rstrip(_BLANKS).partition(b" ")
        key = to_text(name).lower()
        if not key or key.startswith("#"):
            continue
        if key not in KEYS:
            unknown.append((number, key))
        elif value:
            if key in values:
                problems.append(Problem(number, f"{key} occurs twice: update-binfmts uses the last one"))
            values[key], lines[key] = to_text(value), number
    if unknown:  # one problem for all: it may be no format file at all
        more = f" (and {len(unknown) - 1} more)" if unknown[1:] else ""
        reason = f"unknown key {unknown[0][1]!r}{more}, which update-binfmts ignores: write {', '.join(KEYS)}"
        problems.append(Problem(unknown[0][0], reason))
    problems += (
        Problem(lines[key], f"{key} {values[key]!r} means no: write yes or no")
        for key in _FLAGS
        if values.get(key, "no") not in ("yes", "no")
    )
    try:
        format_file = _format(values)
    except _WrongValueError as error:
        return None, (*problems, Problem(lines.get(error.key, 1), str(error)))
    return format_file, tuple(problems)


class _WrongValueError(FormatError):
    """A wrong or missing value that makes the file useless."""

    def __init__(self, key: str, reason: object) -> None:
        super().__init__(f"{key}: {reason}")
        self.key = key


def _format(values: Mapping[str, str]) -> FormatFile:
    for key in ("package", "interpreter"):
        if key not in values:
            raise _WrongValueError(key, f"is missing: write a line '{key} ...'")
    try:
        check_interpreter(values["interpreter"])
    except FormatError as error:
        raise _WrongValueError("interpreter", error) from error
    flags = Flags.NONE
    for key, flag in _FLAGS.items():
        if values.get(key) == "yes":
            flags |= flag
    if Flags.C in flags:
        flags |= Flags.O
    registration = Registration(_match(values), values["interpreter"], flags)
    return FormatFile(registration, values["package"], values.get("detector"))


def _match(values: Mapping[str, str]) -> Match:
    kind = "magic" if "magic" in values else "extension"
    if kind not in values or {"magic", "extension"} <= values.keys():
        raise _WrongValueError(kind, "give exactly one of magic and extension")
    try:
        if kind == "magic":
            offset = values.get("offset", "0")
            if not _OFFSET.fullmatch(offset):
                raise FormatError(f"offset {offset!r} is not a number up to 255")
            return Magic(decode(values["magic"]), decode(values["mask"]) if "mask" in values else None, int(offset))
        for key in ("mask", "offset"):
            if key in values:
                raise FormatError(f"{key} is allowed only with magic, not with extension: remove {key}")
        return Extension(values["extension"])
    except FormatError as error:
        raise _WrongValueError(kind, error) from error


def render_format(name: str, registration: Registration) -> bytes:
    """Return the text of the file for one entry; the file's name has to be ``name``.

    A lone O is left out (see ``SAYS``).  Raises FormatError, which names the entry, for one that such a file cannot
    contain.
    """
    try:
        return _render(name, registration)
    except FormatError as error:
        raise FormatError(f"entry {name!r}: {error}") from error


def _render(name: str, registration: Registration) -> bytes:
    check_name(name)
    check_interpreter(registration.interpreter)
    match = registration.match
    values = {"package": to_bytes(PACKAGE), "interpreter": to_bytes(registration.interpreter)}
    if isinstance(match, Extension):
        values["extension"] = to_bytes(match.text)
        _check_length(name, values, registration)
    else:
        if match.offset:
            values["offset"] = b"%d" % match.offset
        try:
            values |= _escaped(match, minimal=False)
            _check_length(name, values, registration)
        except FormatError:  # an escape takes four bytes for one
            values |= _escaped(match, minimal=True)
            _check_length(name, values, registration)
    for text in (to_bytes(name), values["interpreter"], values.get("extension", b"")):
        if b":" in text:
            raise FormatError(f"{to_text(text)!r} has a colon, which update-binfmts uses as delimiter: choose another")
        if text != text.rstrip(_BLANKS):
            raise FormatError(f"{to_text(text)!r} ends with a blank, which update-binfmts removes: choose another")
    values |= {key: b"yes" for key, flag in _FLAGS.items() if flag in registration.flags}
    lines = [GENERATED, *(to_bytes(key) + b" " + value for key, value in values.items())]
    return b"".join(line + b"\n" for line in lines)


def _escaped(match: Magic, *, minimal: bool) -> dict[str, bytes]:
    fields = {"magic": match.magic} | ({} if match.mask is None else {"mask": match.mask})
    return {
        # Blanks, too: update-binfmts removes one at the end, and one at the beginning is easily overlooked.
        key: _BLANK.sub(lambda blank: b"\\x%02x" % blank[0][0], encode(data, minimal=minimal))
        for key, data in fields.items()
    }


def _check_length(name: str, values: Mapping[str, bytes], registration: Registration) -> None:
    fields = [to_bytes(name), b"M", values.get("offset", b"0"), values.get("magic", values.get("extension", b""))]
    fields += [values.get("mask", b""), values["interpreter"], (registration.flags & SAYS).letters.encode(), b""]
    size = len(b":".join(fields)) + 1
    if size > LINE_BYTES:
        line = f"the registration line that update-binfmts writes has {size} bytes"
        raise FormatError(f"{line}, but the kernel accepts at most {LINE_BYTES}: shorten it")
