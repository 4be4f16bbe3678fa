"""The options for architectures, mount and log, and their variables."""

import argparse
import os
from pathlib import Path

import pytest

from binfmtd.cli import options
from binfmtd.cli.commands import sandbox
from binfmtd.errors import UsageError


def parse(*arguments: str) -> argparse.Namespace:
    parser = options.parser("apply")
    options.add_arch(parser)
    options.add_persistent(parser)
    options.add_reach(parser)
    options.add_log(parser)
    options.add_mount(parser)
    namespace: argparse.Namespace = parser.parse_args(arguments)
    return namespace


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), None),
        (("--arch", "arm,arm64"), ("arm", "arm64")),
        (("--arch", "arm, arm64,"), ("arm", "arm64")),
        (("--arch", "arm arm64\tppc64le"), ("arm", "arm64", "ppc64le")),
        (("--arch", "arm", "arm64"), ("arm", "arm64")),
        (("--arch=arm,arm64",), ("arm", "arm64")),
        (("--arch=arm", "arm64", "--persistent"), ("arm", "arm64")),
        (("--arch", "arm", "--arch", "arm64"), ("arm", "arm64")),
        (("--arch", "linux/arm/v7,x86_64"), ("linux/arm/v7", "x86_64")),
        (("--arch", "-arm"), ("all", "-arm")),
        (("--arch", "-arm", "-s390x", "--no-autoload"), ("all", "-arm", "-s390x")),
        (("--arch", "all", "-arm", "--no-autoload"), ("all", "-arm")),
        (("--arch", "ALL,-ARM"), ("all", "-ARM")),
        (("--arch", "none"), ()),
        (("--arch", "None"), ()),
    ],
)
def test_architectures(arguments: tuple[str, ...], words: tuple[str, ...] | None) -> None:
    """Architectures are given by any name, separated by commas or blanks, in one argument or several.

    ``all``, ``none`` and ``-NAME`` are words, too.  A list with nothing but ``-NAME`` means the rest of all.
    """
    assert options.architectures(parse(*arguments)) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [("", None), ("  ", None), ("arm,arm64", ("arm", "arm64")), ("none", ()), ("all -arm", ("all", "-arm"))],
)
def test_architectures_by_environment(
    monkeypatch: pytest.MonkeyPatch, text: str, words: tuple[str, ...] | None
) -> None:
    """$BINFMTD_ARCH takes the words of --arch; an empty one counts as unset, and the option overrides it."""
    monkeypatch.setenv("BINFMTD_ARCH", text)
    assert options.architectures(parse()) == words
    assert options.architectures(parse("--arch", "s390x")) == ("s390x",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--arch", "armm64"), "--arch: unknown architecture 'armm64': did you mean arm64, amd64 or armv6l?"),
        (("--arch", "arm,-foo"), "--arch: unknown architecture 'foo': `binfmtd arch` lists the known ones"),
        (("--arch", "-all"), "--arch: unknown architecture 'all': `binfmtd arch` lists the known ones"),
        (("--arch", ""), "--arch is empty: name architectures, or write all or none"),
        (("--arch", ","), "--arch is empty: name architectures, or write all or none"),
        (
            ("--arch", "none,arm"),
            "--arch: none cannot be combined with other architectures: remove none, or the others",
        ),
        # An option after --arch is not taken for its list.
        (("--arch", "--persistent"), "argument --arch: expected one argument: see `binfmtd apply --help`"),
    ],
)
def test_what_is_no_architecture(arguments: tuple[str, ...], message: str) -> None:
    """A wrong list of architectures is one error, which suggests near names."""
    with pytest.raises(UsageError) as caught:
        options.architectures(parse(*arguments))
    assert str(caught.value) == message


def test_an_architecture_in_the_environment_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error about a wrong architecture names the variable that contains it."""
    monkeypatch.setenv("BINFMTD_ARCH", "armm64")
    with pytest.raises(UsageError, match=r"^\$BINFMTD_ARCH: unknown architecture 'armm64': did you mean arm64"):
        options.architectures(parse())


def test_the_arguments_of_a_users_command() -> None:
    """``--arch`` among the arguments of sandbox's command, after ``--``, is that command's own option."""
    command = ["podman", "build", "--arch", "arm64", "-t", "x", "."]
    given = sandbox.parser().parse_args(["--arch", "arm", "s390x", "--", *command])
    assert (options.architectures(given), given.command) == (("arm", "s390x"), command)


@pytest.mark.parametrize(
    ("text", "on"),
    [("", False), ("0", False), ("no", False), ("off", False), ("1", True), ("TRUE", True), ("yes", True)],
)
def test_switches_by_environment(monkeypatch: pytest.MonkeyPatch, text: str, on: bool) -> None:
    """A variable is on with 1, true, yes or on, in any case, and off with their opposites."""
    for variable in ("PERSISTENT", "NO_AUTOLOAD", "OWN_INSTANCE"):
        monkeypatch.setenv(f"BINFMTD_{variable}", text)
    given = parse("--mount", "/mnt")
    assert given.persistent is on
    where = options.where(given)
    assert (where.directory, where.autoload, where.own_instance) == ("/mnt", not on, on)


def test_options_beat_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """An option overrides its variable."""
    monkeypatch.setenv("BINFMTD_LOG_LEVEL", "error")
    monkeypatch.setenv("BINFMTD_LOG_FORMAT", "json")
    monkeypatch.setenv("BINFMTD_PERSISTENT", "0")
    given = parse()
    assert (given.log_level, given.log_format) == ("error", "json")
    given = parse("--log-level", "debug", "--log-format", "logfmt", "--persistent")
    assert (given.log_level, given.log_format, given.persistent) == ("debug", "logfmt", True)


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("BINFMTD_PERSISTENT", "maybe", "$BINFMTD_PERSISTENT is 'maybe': write 1 or 0"),
        ("BINFMTD_NO_AUTOLOAD", "2", "$BINFMTD_NO_AUTOLOAD is '2': write 1 or 0"),
        ("BINFMTD_LOG_LEVEL", "loud", "$BINFMTD_LOG_LEVEL is 'loud': write one of debug, info, warning, error"),
        ("BINFMTD_LOG_FORMAT", "xml", "$BINFMTD_LOG_FORMAT is 'xml': write one of auto, console, logfmt, json"),
    ],
)
def test_an_invalid_variable(monkeypatch: pytest.MonkeyPatch, variable: str, text: str, message: str) -> None:
    """A variable with an invalid value is one error, which names the variable and the valid values."""
    monkeypatch.setenv(variable, text)
    with pytest.raises(UsageError) as caught:
        parse()
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("variable", "terminal", "widest"),
    [("50", 200, 50), ("", 130, 130), ("", None, 80), ("wide", 60, 60), ("0", 60, 80), ("9" * 5000, 60, 60)],
)
def test_how_wide_help_is(monkeypatch: pytest.MonkeyPatch, variable: str, terminal: int | None, widest: int) -> None:
    """Help is as wide as COLUMNS, else as the terminal; if that is 0 or unknown, 80 columns."""

    def size() -> os.terminal_size:
        if terminal is None:
            raise OSError
        return os.terminal_size((terminal, 24))

    monkeypatch.setenv("COLUMNS", variable)
    monkeypatch.setattr(os, "get_terminal_size", size)
    lines = options.parser("status", epilog="word " * 100).format_help().splitlines()
    assert widest - 20 < max(map(len, lines)) <= widest


def test_a_relative_config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A relative --config means a file in the directory where the command started; if that is gone, it is an error."""
    parser = options.parser("run")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    options.add_config(parser)
    assert parser.parse_args(["--config", "c.toml"]).config == str(tmp_path / "here" / "c.toml")
    (tmp_path / "here").rmdir()
    assert parser.parse_args(["--config", "/c.toml"]).config == "/c.toml"
    with pytest.raises(UsageError, match=r"--config: c\.toml: the current directory does not exist any more"):
        parser.parse_args(["--config", "c.toml"])
