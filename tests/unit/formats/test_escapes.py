import pytest
from hypothesis import given
from hypothesis import strategies as st

from binfmtd.errors import FormatError
from binfmtd.formats.escapes import decode, encode


@given(st.binary(max_size=256), st.booleans())
def test_what_is_encoded_decodes_to_itself(data: bytes, minimal: bool) -> None:
    """Every byte string survives being written as text, escaped fully or minimally."""
    assert decode(encode(data, minimal=minimal).decode("utf-8", "surrogateescape")) == data


@given(st.binary(max_size=256), st.booleans())
def test_nothing_that_ends_a_field_or_a_line_is_left(data: bytes, minimal: bool) -> None:
    """An encoded magic holds no NUL, newline or delimiter, and no backslash that begins no escape."""
    encoded = encode(data, minimal=minimal)
    assert not set(encoded) & set(b"\0\n:")
    assert encoded.count(b"\\") == encoded.count(b"\\x")


@given(st.binary(max_size=256))
def test_the_readable_text_is_ascii_and_the_minimal_one_is_never_longer(data: bytes) -> None:
    """Fully escaped text can be printed anywhere; minimally escaped text, for long lines, is never longer."""
    readable = encode(data)
    assert readable.decode("ascii").isprintable() or not data
    assert len(encode(data, minimal=True)) <= len(readable)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", b""),
        (r"\x7fELF", b"\x7fELF"),
        (r"\x7FELF", b"\x7fELF"),
        (r"\x00asm", b"\0asm"),
        (r"\q\x41", b"\\qA"),
        (r"a\\b", b"a\\\\b"),
        (r"\\x41B", rb"\\x41B"),
        (r"\\\x41", b"\\\\A"),
        ("ab\\", b"ab\\"),
        ("é", b"\xc3\xa9"),
        ("\udcff", b"\xff"),
        (r"\x5cx41", rb"\x41"),
    ],
)
def test_text_decodes_as_the_kernel_does_it(text: str, expected: bytes) -> None:
    r"""``\xHH`` is a byte, all else stays.  Seen on Linux 6.18: each of these registers and reads back like this."""
    assert decode(text) == expected


@pytest.mark.parametrize("text", [r"\x7", r"\xzz", r"\x7g", r"\\xzz", "\\x"])
def test_an_escape_that_the_kernel_refuses_is_refused(text: str) -> None:
    """An escape that is EINVAL on Linux 6.18 is refused, and the message has the right form."""
    with pytest.raises(FormatError, match=r"write .*two hexadecimal digits"):
        decode(text)


def test_a_lone_surrogate_is_refused() -> None:
    """A character that stands for no byte is a FormatError, not a traceback."""
    with pytest.raises(FormatError, match="not valid text"):
        decode("\ud800")
