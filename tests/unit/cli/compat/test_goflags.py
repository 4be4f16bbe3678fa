"""Go's flag syntax."""

import pytest

from binfmtd.cli.compat.goflags import Flag, HelpWanted, parse
from binfmtd.errors import UsageError

FLAGS = (Flag("install", "a text"), Flag("mount", "another", "/default"), Flag("version", "a switch", default=False))


@pytest.mark.parametrize(
    ("line", "texts", "switches"),
    [
        ("", {}, {}),
        ("-install a", {"install": "a"}, {}),
        ("--install a", {"install": "a"}, {}),
        ("-install=a", {"install": "a"}, {}),
        ("--install=a=b", {"install": "a=b"}, {}),
        ("--install=", {"install": ""}, {}),
        ("--install a --install b", {"install": "b"}, {}),
        ("--install --version", {"install": "--version"}, {}),
        ("--install -- --version", {"install": "--"}, {"version": True}),
        ("-version -mount=/m", {"mount": "/m"}, {"version": True}),
        ("-version=false", {}, {"version": False}),
        ("-version=T -version=0", {}, {"version": False}),
        ("--version false --install a", {}, {"version": True}),
        ("arm64 --install a", {}, {}),
        ("--install a arm64 --version", {"install": "a"}, {}),
        ("- --version", {}, {}),
        ("-- --version", {}, {}),
    ],
)
def test_values(line: str, texts: dict[str, str], switches: dict[str, bool]) -> None:
    """Flags have one or two dashes, = or a blank; the last one counts, and the first word that is no flag ends them."""
    given = parse(line.split(), "binfmt", FLAGS)
    assert (given.texts, given.switches) == (texts, switches)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--foo"], "flag provided but not defined: -foo"),
        (["-foo=1"], "flag provided but not defined: -foo"),
        (["--install"], "flag needs an argument: -install"),
        (["-version=yes"], 'invalid boolean value "yes" for -version: parse error'),
        (["---install", "a"], "bad flag syntax: ---install"),
        (["-=a"], "bad flag syntax: -=a"),
        (["--=a"], "bad flag syntax: --=a"),
    ],
)
def test_errors(words: list[str], message: str) -> None:
    """The error comes first, in Go's words, then the usage; the exit status is 2."""
    with pytest.raises(UsageError) as raised:
        parse(words, "binfmt", FLAGS)
    first, *usage = str(raised.value).split("\n")
    assert (first, usage[0], raised.value.exit_code) == (message, "Usage of binfmt:", 2)


@pytest.mark.parametrize("word", ["-h", "--h", "-help", "--help", "-help=x"])
def test_help(word: str) -> None:
    """Help is the usage, every flag with its default, and the exit status is 0."""
    with pytest.raises(HelpWanted) as raised:
        parse(["-version", word], "binfmt", FLAGS)
    assert raised.value.exit_code == 0
    assert str(raised.value).split("\n") == [
        "Usage of binfmt:",
        "  -install string",
        "        a text",
        "  -mount string",
        '        another (default "/default")',
        "  -version",
        "        a switch",
    ]
