"""The entry file, as the kernel prints it and as newer kernels may print it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.registrations import REGISTRATIONS

from binfmtd.formats.entry_file import parse_entry
from binfmtd.model.handler import Flags, Registration
from binfmtd.model.match import Extension, Magic


def printed(registration: Registration, *, enabled: bool) -> bytes:
    """Return an entry file as the kernel prints it: fs/binfmt_misc.c, entry_status."""
    flags = registration.flags
    letters = "".join(letter for letter in "POCF" if Flags[letter] in flags)
    match = registration.match
    if isinstance(match, Extension):
        what = f"extension .{match.text}\n"
    else:
        mask = "" if match.mask is None else f"\nmask {match.mask.hex()}"
        what = f"offset {match.offset}\nmagic {match.magic.hex()}{mask}\n"
    text = f"{'enabled' if enabled else 'disabled'}\ninterpreter {registration.interpreter}\nflags: {letters}\n{what}"
    return text.encode("utf-8", "surrogateescape")


@given(registration=REGISTRATIONS, enabled=st.booleans())
def test_what_the_kernel_prints_is_read_back(registration: Registration, enabled: bool) -> None:
    """Every registration is read back from the entry file that the kernel prints."""
    assert parse_entry(printed(registration, enabled=enabled)) == (enabled, registration)


@given(text=st.binary(max_size=200))
def test_arbitrary_bytes_are_never_an_error(text: bytes) -> None:
    """Content that cannot be parsed makes an entry opaque, and is no error."""
    enabled, registration = parse_entry(b"enabled\n" + text)
    assert enabled
    assert registration is None or registration.interpreter is not None


LINES = [
    b"interpreter /i",
    b"interpreter",
    b"flags: ",
    b"flags: F",
    b"flags: FT",
    b"flags: \xff",
    b"extension .jar",
    b"extension .",
    b"offset 0",
    b"offset -1",
    b"offset x",
    b"magic 41",
    b"magic 4",
    b"magic \xff",
    b"mask ff",
    b"mask ffff",
    b"bpf prog",
    b"",
]


@given(lines=st.lists(st.sampled_from(LINES), max_size=7), first=st.sampled_from([b"enabled", b"disabled", b""]))
def test_lines_in_any_company_are_never_an_error(lines: list[bytes], first: bytes) -> None:
    """Lines that are nearly an entry are no error, and only a whole entry is parsed."""
    enabled, registration = parse_entry(b"\n".join([first, *lines, b""]))
    assert enabled == (first != b"disabled")
    if registration is not None:
        keys = [line.split(b" ")[0] for line in lines]
        assert keys in (
            [b"interpreter", b"flags:", b"extension"],
            [b"interpreter", b"flags:", b"offset", b"magic"],
            [b"interpreter", b"flags:", b"offset", b"magic", b"mask"],
        )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"enabled\ninterpreter /i\nflags: \noffset 0\nmagic 41\n", Registration(Magic(b"A"), "/i", Flags.NONE)),
        (
            b"enabled\ninterpreter /i\nflags: POCF\noffset 2\nmagic 41\nmask 00\n",
            Registration(Magic(b"A", b"\0", 2), "/i", Flags.P | Flags.O | Flags.C | Flags.F),
        ),
        (b"enabled\ninterpreter /i\nflags: \nextension ..b\n", Registration(Extension(".b"), "/i", Flags.NONE)),
        (b"enabled\nbpf prog\nflags: \noffset 0\nmagic 41\n", None),  # Linux 7.3, type B
        (b"enabled\ninterpreter /i\nflags: T\noffset 0\nmagic 41\n", None),
        (b"enabled\ninterpreter /i\nflags: \noffset 0\nmagic 41\nnew line\n", None),
        (b"enabled\ninterpreter /i\n\nflags: \noffset 0\nmagic 41\n", None),  # the path ends with a newline
        (b"enabled\ninterpreter /i\nflags: F\nflags: \noffset 0\nmagic 41\n", None),
        (b"enabled\ninterpreter /i\nmask 00\nflags: \noffset 0\nmagic 41\n", None),  # the path contains "mask"
        (b"enabled\ninterpreter /i\nmask ff\nflags: \nextension .jar\n", None),
        (b"enabled\ninterpreter /i\nflags: \noffset 0\nmagic 4\n", None),
        (b"enabled\ninterpreter /i\nflags: \noffset x\nmagic 41\n", None),
        (b"enabled\ninterpreter /i\nflags: \xff\noffset 0\nmagic 41\n", None),
        (b"enabled\ninterpreter /i\nflags: \noffset 256\nmagic 41\n", None),
        (b"enabled\n", None),
        (b"", None),
    ],
)
def test_entries_as_they_occur(text: bytes, expected: Registration | None) -> None:
    """A line or flag of a newer kernel, or one line too many, makes an entry opaque; all else is parsed."""
    assert parse_entry(text) == (True, expected)
