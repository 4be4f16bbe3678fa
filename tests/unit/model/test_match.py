"""Matches, compared with the kernel's own loop, which is written out in the plainest way."""

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binfmtd.errors import FormatError
from binfmtd.model.match import HEAD_SIZE, Extension, Magic, Match, match_of, overlap, same, takes, takes_plain

BYTES = st.sampled_from(b"\0A\xff")
MASKS = st.sampled_from(b"\0\xdf\xff")


@st.composite
def magics(draw: st.DrawFn) -> Magic:
    magic = bytes(draw(st.lists(BYTES, min_size=1, max_size=3)))
    masked = st.lists(MASKS, min_size=len(magic), max_size=len(magic)).map(bytes)
    return Magic(magic, draw(st.none() | masked), draw(st.sampled_from([0, 1, 2, 253])))


HEADS = st.lists(BYTES, max_size=6).map(bytes)


def kernel_takes(match: Magic, head: bytes) -> bool:
    """Do as fs/binfmt_misc.c, search_binfmt_handler: compare 256 bytes, padded with zeros, under the mask."""
    buffer = head[:HEAD_SIZE].ljust(HEAD_SIZE, b"\0")
    mask = match.mask or b"\xff" * len(match.magic)
    places = range(match.offset, match.offset + len(match.magic))
    return not any((buffer[p] ^ match.magic[p - match.offset]) & mask[p - match.offset] for p in places)


@given(match=magics(), head=HEADS)
def test_takes_what_the_kernel_takes(match: Magic, head: bytes) -> None:
    """Magic, mask, offset and the padding with zeros count as in the kernel's loop."""
    assert takes(match, head) == kernel_takes(match, head)


def test_only_the_first_256_bytes_count() -> None:
    """The last byte that the kernel reads is number 255; what follows changes nothing."""
    last = Magic(b"Z", offset=255)
    assert takes(last, bytes(255) + b"Z")
    assert not takes(last, bytes(256) + b"Z")
    assert takes(Magic(b"\0", offset=255), bytes(255) + b"\0" + b"Z" * 9)


@given(a=magics(), b=magics())
def test_two_magics_overlap_if_and_only_if_a_file_is_taken_by_both(a: Magic, b: Magic) -> None:
    """Two magics overlap if and only if a file with the bytes of both together is taken by both."""
    both = (a.bits | b.bits).to_bytes(HEAD_SIZE, "little")
    assert overlap(a, b) == overlap(b, a) == (kernel_takes(a, both) and kernel_takes(b, both))


@given(a=magics(), b=magics(), head=HEADS)
def test_what_does_not_overlap_shares_no_file(a: Magic, b: Magic, head: bytes) -> None:
    """No file is taken by two matches that do not overlap."""
    if not overlap(a, b):
        assert not (kernel_takes(a, head) and kernel_takes(b, head))


@given(a=magics(), b=magics(), head=HEADS)
def test_the_same_match_may_be_written_in_several_ways(a: Magic, b: Magic, head: bytes) -> None:
    """Two matches that are the same take the same files, and a match overlaps itself."""
    assert same(a, a)
    if same(a, b):
        assert kernel_takes(a, head) == kernel_takes(b, head)
        assert overlap(a, b)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (Magic(b"A"), Magic(b"A", b"\xff"), True),
        (Magic(b"A"), Magic(b"A?", b"\xff\0"), True),
        (Magic(b"A", offset=1), Magic(b"?A", b"\0\xff"), True),
        (Magic(b"a", b"\xdf"), Magic(b"A", b"\xdf"), True),
        (Magic(b"A"), Magic(b"A", offset=1), False),
        (Magic(b"A"), Magic(b"AB"), False),
        (Magic(b"\0"), Magic(b"\0\0"), False),
        (Magic(b"A"), Magic(b"A", b"\xfe"), False),
        (Extension("jar"), Extension("jar"), True),
        (Extension("jar"), Extension("JAR"), False),
        (Extension("jar"), Magic(b"jar"), False),
    ],
)
def test_same(a: Match, b: Match, expected: bool) -> None:
    """Matches are the same if they take the same files, however they are written."""
    assert same(a, b) is same(b, a) is expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jar", True),
        ("/usr/share/x.y/a.b.jar", True),
        (".jar", True),
        ("jar", False),
        ("a.JAR", False),
        ("a.jar.gz", False),
        ("a.jar.", False),
        ("", False),
        ("/x.jar/a", False),
    ],
)
def test_an_extension_is_the_text_after_the_last_dot(name: str, expected: bool) -> None:
    """An extension is case-sensitive, wherever the file lies and whatever it contains."""
    assert takes(Extension("jar"), b"PK", name) is expected


def test_extensions_overlap_only_when_equal_and_always_with_a_magic() -> None:
    """A magic overlaps every extension: a file may have any bytes and any name at once, but one extension."""
    assert overlap(Extension("jar"), Extension("jar"))
    assert not overlap(Extension("jar"), Extension("py"))
    assert overlap(Extension("jar"), Magic(b"A"))
    assert overlap(Magic(b"A"), Extension("jar"))


@pytest.mark.parametrize(
    ("match", "other", "expected"),
    [
        (Magic(b"A"), Magic(b"AB"), True),
        (Magic(b"AB"), Magic(b"A"), False),
        (Magic(b"A\0"), Magic(b"A"), True),
        (Magic(b"\x03", b"\xfe"), Magic(b"\x02", b"\xfe"), True),
        (Magic(b"B"), Magic(b"A"), False),
        (Extension("jar"), Extension("jar"), True),
        (Extension("jar"), Magic(b"A"), False),
        (Magic(b"A"), Extension("jar"), False),
    ],
)
def test_takes_plain(match: Match, other: Match, expected: bool) -> None:
    """A match serves in another's place if it takes that one's bytes, with zeros around them."""
    assert takes_plain(match, other) is expected


@pytest.mark.parametrize(
    ("magic", "mask", "offset", "says"),
    [
        (b"", None, 0, "empty"),
        (b"A", b"", 0, "same length"),
        (b"AB", b"\xff", 0, "magic has length 2 and mask 1"),
        (b"A", None, -1, "write 0 or more"),
        (b"A", None, 256, "beyond byte 256"),
        (b"A" * 257, None, 0, "beyond byte 256"),
        (b"AB", None, 255, "shorten the magic or lower the offset"),
    ],
)
def test_a_magic_that_the_kernel_could_not_hold_is_refused(
    magic: bytes, mask: bytes | None, offset: int, says: str
) -> None:
    """A magic that is EINVAL in the kernel is refused, and the message has the reason."""
    with pytest.raises(FormatError, match=says):
        Magic(magic, mask, offset)


@pytest.mark.parametrize(("magic", "offset"), [(b"A" * 256, 0), (b"A", 255), (b"\0", 0)])
def test_a_magic_at_the_limit_is_taken(magic: bytes, offset: int) -> None:
    """A magic may end at byte 256, as far as the kernel reads."""
    assert Magic(magic, offset=offset).offset == offset


@pytest.mark.parametrize("text", ["", "a/b", "a\nb", "a\0b"])
def test_an_extension_that_the_kernel_could_not_hold_is_refused(text: str) -> None:
    """An extension is refused if it is empty, or would end a path, a line or a string."""
    with pytest.raises(FormatError, match="extension"):
        Extension(text)


def test_a_match_of_what_is_given() -> None:
    """A match is made of a magic with its mask and offset, or of an extension."""
    assert match_of(b"A") == Magic(b"A")
    assert match_of(b"A", b"\xdf", 3) == Magic(b"A", b"\xdf", 3)
    assert match_of(extension="jar") == Extension("jar")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "exactly one of magic and extension"),
        ({"magic": b"A", "extension": "jar"}, "exactly one of magic and extension"),
        ({"extension": "jar", "mask": b"\xff"}, "mask is allowed only with magic"),
        ({"extension": "jar", "offset": 0}, "offset is allowed only with magic"),
    ],
)
def test_no_match_of_what_does_not_go_together(given: dict[str, Any], says: str) -> None:
    """Values that do not go together are refused, and the message names the key at fault."""
    with pytest.raises(FormatError, match=says):
        match_of(**given)


@given(magics())
def test_a_magic_can_be_copied(magic: Magic) -> None:
    """A copy of a magic has all of its values, computed ones included."""
    copied = deepcopy(magic)
    assert copied == magic
    assert (copied.bits, copied.care) == (magic.bits, magic.care)
