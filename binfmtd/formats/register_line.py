"""The registration line: ``:name:type:offset:magic:mask:interpreter:flags``.

Source: Documentation/admin-guide/binfmt-misc.rst, fs/binfmt_misc.c (create_entry).  The whole line has 11 to 1920 bytes
(MAX_REGISTER_LENGTH).  The first byte is the delimiter, and may not occur in any field.  In a magic or mask only the
bytes that must be are escaped, since a fully escaped one of 230 bytes would overrun the line.
"""

from functools import lru_cache

from binfmtd.errors import FormatError
from binfmtd.formats.escapes import decode, encode
from binfmtd.model.handler import Flags, Registration, check_name
from binfmtd.model.match import Extension, Magic, Match

LINE_BYTES = 1920
_DELIMITERS = ":|,@%+=~^!"  # not # and ;, which begin a comment in binfmt.d


def to_bytes(text: str) -> bytes:
    """Return a name or path as the kernel's bytes; a surrogate escape becomes its byte."""
    return text.encode("utf-8", "surrogateescape")


def to_text(data: bytes) -> str:
    """Return the kernel's bytes of a name or path as text; a byte that is not UTF-8 becomes a surrogate escape."""
    return data.decode("utf-8", "surrogateescape")


@lru_cache(maxsize=1024)  # each pass prepares the lines of all stand-ins anew
def encode_line(name: str, registration: Registration, *, readable: bool = False) -> bytes:
    """Return the line that registers an entry, without a newline.  Raises FormatError if the kernel could not take it.

    With ``readable``, all bytes of magic and mask that are not printable ASCII are escaped: longer, and fit for people
    and text files.
    """
    check_name(name)
    check_interpreter(registration.interpreter)
    match = registration.match
    plain = [name, registration.interpreter, match.text if isinstance(match, Extension) else ""]
    delimiter = next((d for d in _DELIMITERS if not any(d in text for text in plain)), None)
    if delimiter is None:
        both = f"name {name!r} and interpreter {registration.interpreter!r}"
        raise FormatError(f"{both} leave no delimiter: rename them so that one of {_DELIMITERS} is unused")
    if isinstance(match, Extension):
        fields = [b"E", b"", to_bytes(match.text), b""]
    else:
        magic, mask = (_escape(data or b"", delimiter, minimal=not readable) for data in (match.magic, match.mask))
        fields = [b"M", str(match.offset).encode(), magic, mask]
    separator = delimiter.encode()
    line = separator + separator.join(
        [to_bytes(name), *fields, to_bytes(registration.interpreter), registration.flags.letters.encode()]
    )
    if len(line) > LINE_BYTES:
        raise FormatError(
            f"its registration line has {len(line)} bytes, but the kernel accepts at most {LINE_BYTES}: shorten it"
        )
    return line


def rename_line(line: bytes, name: str) -> bytes:
    """Return a registration line with another name; raises FormatError if that could not be registered."""
    check_name(name)
    delimiter, encoded = line[:1], to_bytes(name)
    renamed = delimiter + encoded + line[line.index(delimiter, 1) :]
    if delimiter in encoded:
        raise FormatError(f"name {name!r} contains the delimiter of its registration line")
    if len(renamed) > LINE_BYTES:
        raise FormatError(
            f"its registration line has {len(renamed)} bytes, but the kernel accepts at most {LINE_BYTES}: shorten it"
        )
    return renamed


def check_interpreter(path: str) -> None:
    """Raise FormatError for a path that is not absolute, or that contains a newline or NUL."""
    if not path.startswith("/"):
        raise FormatError(f"interpreter {path!r} must be an absolute path")
    if "\n" in path or "\0" in path:
        raise FormatError(f"interpreter {path!r} must not contain a newline or NUL")


def decode_line(line: bytes) -> tuple[str, Registration]:
    """Read a registration line as the kernel does; return name and registration.  Raises FormatError."""
    line = line.removesuffix(b"\n")
    if not 11 <= len(line) <= LINE_BYTES:
        raise FormatError(f"a registration line has 11 to {LINE_BYTES} bytes, but this line has {len(line)}")
    if b"\0" in line:
        raise FormatError("a registration line must not contain NUL: write \\x00 in a magic or mask")
    fields = line[1:].split(line[:1])
    if len(fields) != 7:
        raise FormatError(f"a registration line has 7 fields, but this line has {len(fields)}")
    name, kind, offset, magic, mask, interpreter, letters = fields
    check_name(to_text(name))
    if not interpreter:
        raise FormatError("the interpreter is missing")
    try:
        flags = Flags.parse(letters.decode("ascii"))
    except UnicodeDecodeError:
        raise FormatError(f"flags {letters!r} are not letters") from None
    match: Match
    if kind == b"E":
        match = Extension(to_text(magic))
    elif kind == b"M":
        if not (offset or b"0").isdigit():
            raise FormatError(f"offset {offset!r} is not a decimal number")
        match = Magic(_unescape(magic), _unescape(mask) if mask else None, int(offset or b"0"))
    else:
        raise FormatError(f"type {kind!r} is neither M nor E")
    return to_text(name), Registration(match, to_text(interpreter), flags)


def _escape(data: bytes, delimiter: str, *, minimal: bool) -> bytes:
    return encode(data, minimal=minimal).replace(delimiter.encode(), b"\\x%02x" % ord(delimiter))


def _unescape(data: bytes) -> bytes:
    return decode(to_text(data))
