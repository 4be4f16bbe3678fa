"""The registration line, encoded and decoded."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.registrations import FLAGS, MATCHES, NAMES, PATHS, REGISTRATIONS

from binfmtd.errors import FormatError
from binfmtd.formats.register_line import LINE_BYTES, decode_line, encode_line, rename_line
from binfmtd.model.handler import Flags, Registration
from binfmtd.model.match import Extension, Magic

SAYS = Registration(Magic(b"A"), "/i", Flags.NONE)


@given(name=NAMES, registration=REGISTRATIONS)
def test_what_is_encoded_decodes_to_itself(name: str, registration: Registration) -> None:
    """A registration that has a line is decoded from it unchanged."""
    try:
        line = encode_line(name, registration)
    except FormatError:
        return
    assert decode_line(line) == (name, registration)
    assert decode_line(line + b"\n") == (name, registration)


def _try(make: Callable[[], bytes]) -> bytes | None:
    try:
        return make()
    except FormatError:
        return None


@given(NAMES, NAMES, REGISTRATIONS)
def test_under_another_name(name: str, other: str, registration: Registration) -> None:
    """A renamed line contains the same registration under the other name, or is refused."""
    line = _try(lambda: encode_line(name, registration))
    renamed = None if line is None else _try(lambda: rename_line(line, other))
    if renamed is not None:
        assert decode_line(renamed) == (other, registration)


def test_what_cannot_be_renamed() -> None:
    """A line is not renamed if it would be too long, or if the name contains its delimiter."""
    registration = Registration(Magic(b"x" * 128), "/" + "i" * (LINE_BYTES - 160), Flags(0))
    line = encode_line("one", registration)
    with pytest.raises(FormatError, match="the kernel accepts at most 1920"):
        rename_line(line, "one" * 20)
    with pytest.raises(FormatError, match="delimiter"):
        rename_line(line, "a:b")


@given(name=NAMES, registration=REGISTRATIONS)
def test_a_line_keeps_the_kernels_bounds(name: str, registration: Registration) -> None:
    """A line has 11 to 1920 bytes, no NUL, no newline, and seven delimiters: one before each field."""
    try:
        line = encode_line(name, registration)
    except FormatError:
        return
    assert 11 <= len(line) <= LINE_BYTES
    assert not set(line) & set(b"\0\n")
    assert line.count(line[:1]) == 7


@given(magic=st.binary(min_size=250, max_size=250), flags=FLAGS)
def test_a_long_magic_with_its_mask_fits(magic: bytes, flags: Flags) -> None:
    """Nearly any 250 bytes with a mask have a line, since no more is escaped than necessary."""
    printable = bytes(b if b > 0x1F and b not in b":\\" else 0x41 for b in magic)
    registration = Registration(Magic(printable, b"\xff" * 250), "/usr/bin/interpreter", flags)
    assert decode_line(encode_line("name", registration)) == ("name", registration)


def read_or_refuse(line: bytes) -> None:
    try:
        name, registration = decode_line(line)
    except FormatError:
        return
    assert name
    assert registration.interpreter


@given(line=st.binary(max_size=80))
def test_arbitrary_bytes_are_read_or_refused(line: bytes) -> None:
    """Any bytes are decoded, or refused with a FormatError."""
    read_or_refuse(line)


FIELDS = st.lists(
    st.sampled_from(
        [b"", b"a", b"M", b"E", b"0", b"9" * 900, b"-1", b"\\x4", b"\\x41", b"\xff", b"F", b"/i", b".", b"\n"]
    ),
    min_size=6,
    max_size=8,
)


@given(fields=FIELDS, delimiter=st.sampled_from([b":", b"\\", b"x", b"\xff", b"\n", b"M"]))
def test_bytes_in_the_right_shape_are_read_or_refused(fields: list[bytes], delimiter: bytes) -> None:
    """Bytes with the number of fields of a line are decoded, or refused with a FormatError."""
    read_or_refuse(delimiter + delimiter.join(fields))


@pytest.mark.parametrize(
    ("line", "name", "registration"),
    [
        (b":a:M::A::/i:", "a", SAYS),
        (b":a:M::A::/i:\n", "a", SAYS),
        (b",a,M,0,A,,/i,", "a", SAYS),
        (b":a:E::b::/:", "a", Registration(Extension("b"), "/", Flags.NONE)),
        (
            b":a:M:005:\\x41\\x5c:\\xff\\x0f:/i:FC",
            "a",
            Registration(Magic(b"A\\", b"\xff\x0f", 5), "/i", Flags.parse("CF")),
        ),
        (b":a:E:zz:jar:foo:/i:", "a", SAYS._replace(match=Extension("jar"))),
        (b":a:E::\\x41::/i:", "a", SAYS._replace(match=Extension("\\x41"))),
        (b":l\xe4t:M::A::/\xe4:P", "l\udce4t", Registration(Magic(b"A"), "/\udce4", Flags.P)),
        (b":a:M::A:\\x00:/i:", "a", SAYS._replace(match=Magic(b"A", b"\0"))),
        (b":a:M::A::i:", "a", SAYS._replace(interpreter="i")),
    ],
)
def test_what_the_kernel_reads_in_a_line(line: bytes, name: str, registration: Registration) -> None:
    """A line is decoded as the kernel does: each of these registers and reads back like this on Linux 6.18."""
    assert decode_line(line) == (name, registration)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"", "11 to 1920 bytes, but this line has 0"),
        (b":a:M::A::/", "11 to 1920 bytes, but this line has 10"),
        (b":a:M::A::/i:" + b"x" * 1920, "11 to 1920 bytes"),
        (b":a:M::A::/iii", "7 fields, but this line has 6"),
        (b":a:M::A::/i:F:", "7 fields, but this line has 8"),
        (b":a:Mx::A::/i:", "neither M nor E"),
        (b":a:B::A::/i:", "neither M nor E"),
        (b":a:M:x:A::/i:", "not a decimal number"),
        (b":a:M:-1:A::/i:", "not a decimal number"),
        (b":a:M:256:A::/i:", "beyond byte 256"),
        (b":a:M::::/iii:", "magic is empty"),
        (b":a:M::\\x4::/i:", "not an escape"),
        (b":a:M::AB:A:/i:", "same length"),
        (b":a:M::A\0B::/i:", "must not contain NUL"),  # the kernel would take it for an A
        (b":a:E::::/iii:", "extension"),
        (b":a:E::b/c::/i:", "extension"),
        (b"::M::A::/iii:", "1 to 255 bytes"),
        (b":register:M::A::/i:", "reserved by binfmt_misc"),
        (b":a:M::AAAA:::", "interpreter is missing"),
        (b":a:M::A::/i:Q", "is not one of P, O, C, F"),
        (b":a:M::A::/i:\xff", "are not letters"),
    ],
)
def test_what_cannot_be_a_line_is_refused(line: bytes, says: str) -> None:
    """A line that gives EINVAL or EEXIST, or that the kernel reads differently, is refused with the reason."""
    with pytest.raises(FormatError, match=says):
        decode_line(line)


@pytest.mark.parametrize(
    ("name", "registration", "says"),
    [
        ("a/b", SAYS, "must not contain"),
        ("", SAYS, "1 to 255 bytes"),
        ("a", SAYS._replace(interpreter="i"), "absolute path"),
        ("a", SAYS._replace(interpreter=""), "absolute path"),
        ("a", SAYS._replace(interpreter="/i\n"), "newline or NUL"),
        ("a", SAYS._replace(interpreter="/i\0"), "newline or NUL"),
        ("a", SAYS._replace(interpreter="/" + "x" * 1920), "the kernel accepts at most 1920: shorten it"),
        (":|,;@%", SAYS._replace(interpreter="/+=~^!"), "no delimiter"),
    ],
)
def test_what_has_no_line_is_refused(name: str, registration: Registration, says: str) -> None:
    """A registration that the kernel could not take, or would take for something else, has no line."""
    with pytest.raises(FormatError, match=says):
        encode_line(name, registration)


def test_a_line_may_be_as_long_as_the_kernel_takes() -> None:
    """A line has at most 1920 bytes, the kernel's limit."""
    longest = SAYS._replace(interpreter="/" + "i" * (LINE_BYTES - len(":a:M:0:A::/:")))
    assert len(encode_line("a", longest)) == LINE_BYTES
    with pytest.raises(FormatError, match="1921 bytes"):
        encode_line("ab", longest)


def test_the_line_is_the_one_that_everybody_writes() -> None:
    """The delimiter is a colon if possible, the offset is always written, and flags are in the kernel's order."""
    registration = Registration(Magic(b"\x7fELF:\\\n\0", b"\xff" * 8, 4), "/usr/bin/i", Flags.parse("FPC"))
    expected = b":n:M:4:\x7fELF\\x3a\\x5c\\x0a\\x00:" + b"\xff" * 8 + b":/usr/bin/i:POCF"
    assert encode_line("n", registration) == expected
    assert encode_line("a:b", SAYS._replace(match=Magic(b"a|b"))) == rb"|a:b|M|0|a\x7cb||/i|"


@given(name=NAMES, path=PATHS, match=MATCHES)
def test_the_delimiter_occurs_nowhere_else(name: str, path: str, match: Magic | Extension) -> None:
    """No field contains the delimiter: another one is chosen, or the registration is refused."""
    try:
        line = encode_line(name, Registration(match, path, Flags.NONE))
    except FormatError:
        return
    delimiter = line[:1].decode("ascii")
    texts = [name, path, match.text if isinstance(match, Extension) else ""]
    assert not any(delimiter in text for text in texts)
