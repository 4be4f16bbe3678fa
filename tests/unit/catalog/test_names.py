"""Names of architectures: every name in use is understood, and an error suggests near ones for any other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binfmtd.catalog.architectures import CATALOG
from binfmtd.catalog.names import did_you_mean, find, nearest
from binfmtd.errors import FormatError

# Names in use, by architecture; each must be understood even if the catalog's table changes.
IN_USE = {
    "aarch64": "arm64 linux/arm64 linux/arm64/v8 arm64/v8 arm64v8 arm64/v8.2 arm64/v9 arm64/8 linux/aarch64",
    "aarch64_be": "arm64be",
    "arm": "armhf armel armv7l armv6l armv5tel armv7hl armhfp arm32v7 linux/arm linux/arm/v5 arm/v6 arm/v7 arm/7",
    "armeb": "armbe armv7b",
    "hppa": "parisc",
    "i386": "386 linux/386 i486 i586 i686 x86 ia32",
    "loongarch64": "loong64 linux/loong64",
    "mips": "linux/mips",
    "mips64": "linux/mips64",
    "mips64el": "mips64le linux/mips64le",
    "mipsel": "mipsle linux/mipsle",
    "or1k": "openrisc",
    "ppc": "powerpc",
    "ppc64": "powerpc64 linux/ppc64",
    "ppc64le": "ppc64el powerpc64le linux/ppc64le",
    "riscv64": "linux/riscv64 riscv64gc",
    "s390x": "linux/s390x",
    "x86_64": "amd64 x86-64 x64 linux/amd64 linux/amd64/v2 amd64/v3 x86_64/v4 x86-64-v2 x86_64_v2",
}
NAMES = [(name, row.name) for row in CATALOG.values() for name in (row.name, *row.aliases)]


@pytest.mark.parametrize(("typed", "name"), [(typed, name) for name, all_ in IN_USE.items() for typed in all_.split()])
def test_names_in_use(typed: str, name: str) -> None:
    """Go's, Debian's, GNU's, rpm's, Docker's and OCI's names are understood."""
    assert find(typed) is CATALOG[name]


@given(
    known=st.sampled_from(NAMES),
    upper=st.lists(st.booleans(), min_size=30, max_size=30),
    before=st.text(" \t\r\n"),
    after=st.text(" \t\r\n"),
)
def test_case_and_blanks_do_not_matter(known: tuple[str, str], upper: list[bool], before: str, after: str) -> None:
    """An alias means its architecture in any mixture of case, with any blanks around it."""
    alias, name = known
    typed = "".join(c.upper() if up else c for c, up in zip(alias, upper, strict=False))
    assert len(typed) == len(alias)
    assert find(before + typed + after) is CATALOG[name]


@given(known=st.sampled_from(NAMES))
def test_linux_prefix_is_optional(known: tuple[str, str]) -> None:
    """Every name works with ``linux/`` before it, and every OCI platform without."""
    alias, name = known
    plain = alias.removeprefix("linux/")
    assert find(plain) is find(f"linux/{plain}") is CATALOG[name]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("aarm64", "unknown architecture 'aarm64': did you mean arm64, aarch64 or amd64?"),
        (" Linux/AMD46 ", "unknown architecture 'Linux/AMD46': did you mean amd64 or arm64?"),
        ("x86_65", "unknown architecture 'x86_65': did you mean x86_64?"),
        ("arm64/v99", "unknown architecture 'arm64/v99': did you mean arm64/v9, arm64/v8 or arm64?"),
        ("s390x/v1", "unknown architecture 's390x/v1': did you mean s390x?"),
        ("arm/", "unknown architecture 'arm/': did you mean arm, arm/v8 or arm/v7?"),
        ("windows/amd64", "unknown architecture 'windows/amd64': `binfmtd arch` lists the known ones"),
        ("a\nb", r"unknown architecture 'a\nb': `binfmtd arch` lists the known ones"),
        ("", "unknown architecture '': `binfmtd arch` lists the known ones"),
    ],
)
def test_unknown_name(typed: str, message: str) -> None:
    """The error names what was typed and the nearest known names, or where to find them all."""
    with pytest.raises(FormatError) as caught:
        find(typed)
    assert str(caught.value) == message


@given(typed=st.text())
def test_any_text_is_a_name_or_one_line_of_error(typed: str) -> None:
    """Any text is a name or raises FormatError, and the message is one printable line."""
    try:
        message = find(typed).name
    except FormatError as error:
        message = str(error)
    assert message.isprintable()
    assert message


@given(
    word=st.text("abc", min_size=1, max_size=8),
    choices=st.lists(st.text("abcABC", min_size=1, max_size=8), max_size=8, unique_by=str.lower),
)
def test_nearest_are_choices(word: str, choices: list[str]) -> None:
    """``nearest`` returns at most three choices, as they are spelled; one that is equal but for case comes first."""
    found = nearest(word, choices)
    assert len(found) <= 3
    assert set(found) <= set(choices)
    equal = [choice for choice in choices if choice.lower() == word]
    assert found[: len(equal)] == tuple(equal)


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("setle", "did you mean settle?"),
        ("flag", "did you mean flags or flaga?"),
        ("resink", "did you mean resync?"),
        ("zzz", ""),
    ],
)
def test_did_you_mean(word: str, text: str) -> None:
    """``did_you_mean`` returns a readable question with one or more choices, or an empty text without any."""
    assert did_you_mean(word, ["settle", "resync", "flags", "flaga", "magic"]) == text
