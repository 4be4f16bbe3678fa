"""Debian's format files, written and read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.registrations import NAMES, REGISTRATIONS

from binfmtd.errors import FormatError
from binfmtd.formats.binfmt_d import Problem, is_generated
from binfmtd.formats.debian import SAYS, is_format, parse_format, render_format
from binfmtd.formats.register_line import LINE_BYTES
from binfmtd.model.handler import Flags, Registration
from binfmtd.model.match import Extension, Magic

A = Registration(Magic(b"A"), "/i", Flags.NONE)


@given(name=NAMES, registration=REGISTRATIONS)
def test_what_is_written_is_read_back(name: str, registration: Registration) -> None:
    """Every entry that has a file is read back from it, except for flag O without C, which has no key."""
    try:
        text = render_format(name, registration)
    except FormatError:
        return
    lone_o = registration.flags & Flags.O if Flags.C not in registration.flags else Flags.NONE
    found, problems = parse_format(text)
    assert found is not None
    assert found.registration == registration._replace(flags=registration.flags & ~lone_o)
    assert (problems, is_format(text), is_generated(text)) == ((), True, True)


@given(text=st.binary(max_size=120))
def test_any_bytes_are_read_or_refused(text: bytes) -> None:
    """No bytes raise an error, and what is refused has a reason."""
    found, problems = parse_format(b"package p\n" + text)
    assert found is not None or problems


def test_a_file_of_every_key() -> None:
    """Keys may have any case, blanks at the ends are dropped, and the kernel's escapes are decoded."""
    text = b"""\
PACKAGE wine
interpreter /usr/bin/wine\t
magic \\x4d\\x5aA
offset 2
mask \\xff\\xff\\x00
credentials yes
preserve no
fix_binary yes
"""
    found, problems = parse_format(text)
    assert problems == ()
    assert found is not None
    assert found.registration == Registration(Magic(b"MZA", b"\xff\xff\0", 2), "/usr/bin/wine", Flags.parse("CF"))
    assert (found.package, found.detector) == ("wine", None)


def test_a_detector_is_no_part_of_the_registration() -> None:
    """A detector is no part of the registration: the kernel cannot ask a program."""
    found, problems = parse_format(b"package m\ninterpreter /usr/bin/cli\nmagic MZ\ndetector /usr/lib/detect\n")
    assert problems == ()
    assert found is not None
    assert found.detector == "/usr/lib/detect"


def test_an_extension() -> None:
    """An extension is taken literally, and a key without a value is ignored."""
    found, problems = parse_format(b"package p\ninterpreter /i\nextension ja\\x72\nmask\ndetector \n")
    assert problems == ()
    assert found is not None
    assert found.registration == Registration(Extension("ja\\x72"), "/i", Flags.NONE)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"interpreter /i\nmagic A\n", Problem(1, "package: is missing: write a line 'package ...'")),
        (b"package p\nmagic A\n", Problem(1, "interpreter: is missing: write a line 'interpreter ...'")),
        (
            b"package p\nmagic A\ninterpreter i\n",
            Problem(3, "interpreter: interpreter 'i' must be an absolute path"),
        ),
        (b"package p\ninterpreter /i\n", Problem(1, "extension: give exactly one of magic and extension")),
        (
            b"package p\ninterpreter /i\nextension e\nmagic A\n",
            Problem(4, "magic: give exactly one of magic and extension"),
        ),
        (
            b"package p\ninterpreter /i\nextension e\noffset 1\n",
            Problem(3, "extension: offset is allowed only with magic, not with extension: remove offset"),
        ),
        (b"package p\ninterpreter /i\nmagic A\noffset x\n", Problem(3, "magic: offset 'x' is not a number up to 255")),
    ],
)
def test_what_update_binfmts_could_not_use_is_refused(text: bytes, problem: Problem) -> None:
    """A file that update-binfmts could not use is refused, with the line at fault and the remedy."""
    assert parse_format(text) == (None, (problem,))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"magic \\x4", "not an escape"),
        (b"mask \\xff\\xff", "same length"),
        (b"offset " + b"9" * 5000, "not a number"),
        (b"offset 256", "beyond byte 256"),
    ],
)
def test_values_that_the_kernel_refuses_are_refused(line: bytes, says: str) -> None:
    """A value that the kernel refuses is refused; a number of 5,000 digits is no traceback."""
    found, problems = parse_format(b"package p\ninterpreter /i\nmagic A\n" + line)
    assert found is None
    assert says in problems[-1].reason


def test_what_is_ignored_is_named() -> None:
    """A line that update-binfmts silently ignores is a problem with its number; the rest is read as it does."""
    text = b"# comment\npackage p\ninterpreter /i\nmagic B\nmagic A\ncolour red\npreserve maybe\nsize 3\n"
    found, problems = parse_format(text)
    assert found is not None
    assert found.registration == A
    assert [(problem.line, problem.reason.split(",")[0]) for problem in problems] == [
        (5, "magic occurs twice: update-binfmts uses the last one"),
        (6, "unknown key 'colour' (and 1 more)"),
        (7, "preserve 'maybe' means no: write yes or no"),
    ]


@pytest.mark.parametrize(
    ("text", "looks_like_it"),
    [
        (b"package p\n", True),
        (b"\n# comment\n  \nMagic PK\n", True),
        (b"interpreter\n", True),
        (b":package:M::A::/i:\n", False),
        (b"packages p\n", False),
        (b"", False),
        (b"# package\n", False),
    ],
)
def test_its_files_are_known_by_their_first_key(text: bytes, looks_like_it: bool) -> None:
    """A format file is recognised by its first key, so `import` can distinguish it from a binfmt.d file.

    There the same line would have `p` for its delimiter.
    """
    assert is_format(text) is looks_like_it


def test_a_written_file() -> None:
    """In a written file colons, blanks and unprintable bytes are escaped, and each flag has its key."""
    registration = Registration(Magic(b"\x7f: A ", b"\xff" * 5, 3), "/usr/bin/i", Flags.parse("FPC"))
    assert render_format("x", registration) == (
        b"# generated by binfmtd\n"
        b"package binfmtd\n"
        b"interpreter /usr/bin/i\n"
        b"offset 3\n"
        b"magic \\x7f\\x3a\\x20A\\x20\n"
        b"mask \\xff\\xff\\xff\\xff\\xff\n"
        b"credentials yes\n"
        b"preserve yes\n"
        b"fix_binary yes\n"
    )


def test_a_long_magic_is_written_in_fewer_bytes() -> None:
    """If escapes make the line too long, bytes are written as they are, except blanks."""
    magic = Magic(b"\t" + b"\xff" * 245, b"\xff" * 245 + b" ")
    text = render_format("long", A._replace(match=magic))
    found, _ = parse_format(text)
    assert found is not None
    assert found.registration.match == magic
    assert b"\\xff" not in text


@pytest.mark.parametrize(
    ("name", "registration", "says"),
    [
        ("a:b", A, "has a colon"),
        ("a", A._replace(interpreter="/i:"), "has a colon"),
        ("a", A._replace(match=Extension("e:")), "has a colon"),
        ("a", A._replace(interpreter="/i "), "ends with a blank"),
        ("a", A._replace(match=Extension("e\r")), "ends with a blank"),
        ("a/b", A, "must not contain"),
        ("a", A._replace(interpreter="i"), "absolute path"),
        (
            "a",
            A._replace(interpreter="/" + "i" * (LINE_BYTES - len(":a:M:0:A::/:"))),
            "has 1921 bytes, but the kernel accepts at most 1920",
        ),
        ("a", A._replace(match=Extension("e" * 1920)), "accepts at most 1920"),
    ],
)
def test_what_such_a_file_cannot_hold_is_refused(name: str, registration: Registration, says: str) -> None:
    """An entry that such a file cannot hold is an error that names the entry and the reason."""
    with pytest.raises(FormatError) as caught:
        render_format(name, registration)
    assert str(caught.value).startswith(f"entry {name!r}: ")
    assert says in str(caught.value)


def test_only_o_has_no_key() -> None:
    """The flags with a key are all but O, so `export` can name the flag that gets lost."""
    assert Flags.parse("POCF") == SAYS | Flags.O
