"""binfmt.d files, written and read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.registrations import NAMES, REGISTRATIONS

from binfmtd.errors import FormatError
from binfmtd.formats.binfmt_d import GENERATED, Rule, is_generated, parse_conf, render_conf
from binfmtd.formats.register_line import LINE_BYTES
from binfmtd.model.handler import Flags, Registration
from binfmtd.model.match import Extension, Magic

SAYS = Registration(Magic(b"A"), "/i", Flags.NONE)
ENTRIES = st.lists(st.tuples(NAMES, REGISTRATIONS), max_size=5)


@given(entries=ENTRIES, comments=st.lists(st.text(max_size=20), max_size=3))
def test_what_is_written_is_read_back(entries: list[tuple[str, Registration]], comments: list[str]) -> None:
    """A written file is read back as exactly its entries, in their order, whatever they and the comments contain."""
    comments = [comment.encode("utf-8", "replace").decode() for comment in comments]
    try:
        text = render_conf(entries, comments)
    except FormatError:
        return
    rules, problems = parse_conf(text)
    assert [(rule.name, rule.registration) for rule in rules] == entries
    assert problems == ()
    assert is_generated(text)


@given(entries=ENTRIES)
def test_no_line_is_taken_for_something_else(entries: list[tuple[str, Registration]]) -> None:
    """systemd strips blanks, skips comments and ends lines at CR and NUL: none of that changes a written line."""
    try:
        text = render_conf(entries)
    except FormatError:
        return
    assert not set(text) & set(b"\r\0")
    for line in text.splitlines()[1:]:
        assert line == line.strip(b" \t\n\r")
        assert line[:1] not in (b"#", b";")
        assert len(line) < LINE_BYTES


@given(text=st.binary(max_size=120) | st.text("#;:aME\\x4/i\n\r\0 ", max_size=60).map(str.encode))
def test_any_bytes_are_a_file(text: bytes) -> None:
    """No bytes raise an error: a line that is no registration is a problem with its number, counted from 1."""
    rules, problems = parse_conf(text)
    last = text.count(b"\n") + 1
    numbers = [rule.line for rule in rules] + [problem.line for problem in problems]
    assert all(1 <= number <= last for number in numbers)


def test_a_file_of_every_kind_of_line() -> None:
    """Each kind of line is read as systemd-binfmt 257 reads it, which was tried with the real one."""
    text = (
        b"\n"
        b"# a comment\n"
        b"  ; another\n"
        b" \t:strip:M::Q::/i:F \t\r\n"
        b"#hash#M##S##/i#\n"
        b";semi;M;;S;;/i;\n"
        b"|pipe|M||\\x50||/i|\n"
        b":twice:M::d1::/i:\n"
        b":twice:M::d2::/i:\n"
        b":l\xe4t:M::R\xff::/i\xe4:\n"
        b":before:M::A::/i:\r:after:M::B::/i:\0:nul:M::C::/i:\n"
        b":last:E::last::/l:"
    )
    rules, problems = parse_conf(text)
    assert problems == ()
    assert rules == (
        Rule("strip", Registration(Magic(b"Q"), "/i", Flags.F), 4),
        Rule("pipe", SAYS._replace(match=Magic(b"P")), 7),
        Rule("twice", SAYS._replace(match=Magic(b"d1")), 8),
        Rule("twice", SAYS._replace(match=Magic(b"d2")), 9),
        Rule("l\udce4t", Registration(Magic(b"R\xff"), "/i\udce4", Flags.NONE), 10),
        Rule("before", SAYS, 11),
        Rule("after", SAYS._replace(match=Magic(b"B")), 11),
        Rule("nul", SAYS._replace(match=Magic(b"C")), 11),
        Rule("last", Registration(Extension("last"), "/l", Flags.NONE), 12),
    )


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b":a:", "a registration line has 11 to 1920 bytes, but this line has 3"),
        (b":a:M::AAAA::/i", "7 fields, but this line has 6"),
        (b":/bad:M::A::/i:", "must not contain"),
        (b"::M::AAA::/i:", "1 to 255 bytes"),
        (b":..:M::AA::/i:", "reserved by binfmt_misc"),
        (b":register:M::A::/i:", "reserved by binfmt_misc"),
        (b":status:M::A::/i:", "reserved by binfmt_misc"),
        (b":rel:M::A::i:FF", "must be an absolute path"),
        (b":.binfmtd~a:M::A::/i:", "reserved for binfmtd's stand-ins"),
        (b":a:M::AAAAAA\rB::/i:F", "7 fields, but this line has 4"),  # the line ends at the carriage return
    ],
)
def test_a_bad_line_is_a_problem_and_the_others_count(line: bytes, says: str) -> None:
    """A bad line is a problem with its number and the reason; the rules around it are read."""
    rules, problems = parse_conf(b":one:M::1::/i:\n" + line + b"\n:two:M::2::/i:\n")
    assert [rule.name for rule in rules] == ["one", "two"]
    assert {problem.line for problem in problems} == {2}
    assert says in problems[0].reason


def test_a_written_file_is_fit_to_read() -> None:
    """A written file is printable ASCII if that fits; its first line names binfmtd, and comments precede the lines."""
    registration = Registration(Magic(b"\x7fELF\r:;", b"\xff\xff\xff\xff\xff\xff\x00"), "/usr/bin/i", Flags.parse("FP"))
    text = render_conf([("qemu-x", registration), ("a:b", SAYS)], ["one", "two\n:evil:M::A::/i:\rthree"])
    assert text == (
        b"# generated by binfmtd\n"
        b"# one\n"
        b"# two\n"
        b"# :evil:M::A::/i:\n"
        b"# three\n"
        rb":qemu-x:M:0:\x7fELF\x0d\x3a;:\xff\xff\xff\xff\xff\xff\x00:/usr/bin/i:PF"
        b"\n"
        b"|a:b|M|0|A||/i|\n"
    )


def test_a_long_magic_is_written_in_fewer_bytes() -> None:
    """If escapes make a line too long, bytes are written as they are, except those that would end the line."""
    magic = Magic(b"\r" + b"\xff" * 200, b"\xff" * 200 + b"\r")
    text = render_conf([("long", SAYS._replace(match=magic))])
    assert b"\r" not in text
    assert text.count(b"\\x0d") == 2
    assert parse_conf(text)[0][0].registration.match == magic


@pytest.mark.parametrize(
    ("name", "registration", "says"),
    [
        ("a\rb", SAYS, "carriage return"),
        ("a", SAYS._replace(interpreter="/i\r"), "carriage return"),
        ("a", SAYS._replace(match=Extension("e\r")), "carriage return"),
        ("a/b", SAYS, "must not contain"),
        ("a", SAYS._replace(interpreter="i"), "absolute path"),
        # The newline that systemd adds makes it 1921 bytes, and the kernel gives EINVAL.
        (
            "a",
            SAYS._replace(interpreter="/" + "i" * (LINE_BYTES - len(":a:M:0:A::/:"))),
            "systemd accepts at most 1919: shorten",
        ),
        ("a", SAYS._replace(match=Magic(b"\r" * 250, b"\r" * 250)), "systemd accepts at most 1919: shorten"),
    ],
)
def test_what_such_a_file_cannot_hold_is_refused(name: str, registration: Registration, says: str) -> None:
    """An entry that such a file cannot hold is an error that names the entry and the reason."""
    with pytest.raises(FormatError) as caught:
        render_conf([("fine", SAYS), (name, registration)])
    assert str(caught.value).startswith(f"entry {name!r}: ")
    assert says in str(caught.value)


def test_the_longest_line() -> None:
    """A line of 1919 bytes registers through systemd, and one byte more does not: seen with systemd 257."""
    longest = SAYS._replace(interpreter="/" + "i" * (LINE_BYTES - 1 - len(":a:M:0:A::/:")))
    assert len(render_conf([("a", longest)]).splitlines()[1]) == 1919


@pytest.mark.parametrize(
    ("text", "generated"),
    [
        (GENERATED, True),
        (GENERATED + b"\n:a:M::A::/i:\n", True),
        (GENERATED + b" \r\n", True),
        (GENERATED + b"-in-another-way\n", False),
        (b"# mine\n" + GENERATED, False),
        (b"", False),
    ],
)
def test_our_own_files_are_known_by_their_first_line(text: bytes, generated: bool) -> None:
    """Only the whole first line makes a file ours: an administrator's comment about it does not."""
    assert is_generated(text) is generated
