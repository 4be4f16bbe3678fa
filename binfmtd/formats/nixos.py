r"""A NixOS module that sets ``boot.binfmt.registrations``.

NixOS makes two lines of each registration, in the order of the names (nixpkgs, nixos/modules/system/boot/binfmt.nix,
2025): one of binfmt.d, ``:NAME:TYPE:OFFSET:MAGIC:MASK:/run/binfmt/NAME:FLAGS``, and one of tmpfiles.d, which links
/run/binfmt/NAME to the interpreter.

* Both are put together without quoting: a name or path must not contain a blank, colon, percent sign or the like.
* ``wrapInterpreterInShell`` is true unless the module sets it, and allows neither F nor P.
* ``matchCredentials`` (C) requires ``openBinary`` (O), as C implies O in the kernel.
"""

import re
from collections.abc import Iterable

from binfmtd.errors import FormatError
from binfmtd.formats.binfmt_d import FILE_LINE_BYTES, GENERATED
from binfmtd.formats.escapes import encode
from binfmtd.formats.register_line import check_interpreter
from binfmtd.model.handler import Flags, Registration, check_name
from binfmtd.model.match import Extension

_SAFE = re.compile(r"[A-Za-z0-9_.,+=@~/-]*")
_FLAGS = {
    "preserveArgvZero": Flags.P,
    "openBinary": Flags.O,
    "matchCredentials": Flags.C,
    "fixBinary": Flags.F,
}


def render_nixos(entries: Iterable[tuple[str, Registration]]) -> bytes:
    """Return the module; raises FormatError, which names the entry, for one that it cannot express."""
    lines = [GENERATED.decode(), "{", "  boot.binfmt.registrations = {"]
    for name, registration in entries:
        _check(name, registration)
        lines += [
            f'    "{name}" = {{',
            *(f"      {key} = {value};" for key, value in _attributes(registration)),
            "    };",
        ]
    return "".join(line + "\n" for line in [*lines, "  };", "}"]).encode()


def _check(name: str, registration: Registration) -> None:
    match = registration.match
    extension = match.text if isinstance(match, Extension) else ""
    try:
        check_name(name)
        check_interpreter(registration.interpreter)
        for text in (name, registration.interpreter, extension):
            if not _SAFE.fullmatch(text):
                raise FormatError(
                    f"{text!r} has characters that NixOS does not quote: use letters, digits and _.,+=@~/- only"
                )
        texts = [extension] if isinstance(match, Extension) else [_escaped(match.magic), _escaped(match.mask or b"")]
        size = len(f":{name}:M:255::/run/binfmt/{name}:POCF") + len(":".join(texts))
        if size > FILE_LINE_BYTES:
            raise FormatError(
                f"its line has up to {size} bytes, but systemd accepts at most {FILE_LINE_BYTES}: shorten it"
            )
    except FormatError as error:
        raise FormatError(f"entry {name!r}: {error}") from error


def _attributes(registration: Registration) -> Iterable[tuple[str, str]]:
    match = registration.match
    if isinstance(match, Extension):
        yield "recognitionType", '"extension"'
        yield "magicOrExtension", f'"{match.text}"'
    else:
        yield "recognitionType", '"magic"'
        yield "magicOrExtension", _indented(match.magic)
        if match.mask is not None:
            yield "mask", _indented(match.mask)
        if match.offset:
            yield "offset", str(match.offset)
    yield "interpreter", f'"{registration.interpreter}"'
    yield "wrapInterpreterInShell", "false"
    for key, flag in _FLAGS.items():
        if flag in registration.flags:
            yield key, "true"


def _indented(data: bytes) -> str:
    """Return an indented string of Nix: a backslash in it is literal; blanks, stripped at its start, are escaped."""
    return f"''{_escaped(data)}''"


def _escaped(data: bytes) -> str:
    text = encode(data).decode("ascii")
    return re.sub(r"[ '$]", lambda match: f"\\x{ord(match[0]):02x}", text)
