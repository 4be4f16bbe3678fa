"""The choice of the drop-in, and the errors that come before any work."""

import os
import sys
from pathlib import Path

import pytest
from support.cli import run
from support.programs import install

from binfmtd.cli.compat.main import choose, log_error
from binfmtd.errors import StateError, UsageError

BINFMT = (sys.executable, "-c", "from binfmtd.cli.compat.main import entry; entry()")


@pytest.mark.parametrize(
    ("words", "named", "chosen"),
    [
        ("", "", "tonistiigi"),
        ("", "tonistiigi", "tonistiigi"),
        ("", "linuxkit", "linuxkit"),
        ("", "multiarch", "multiarch"),
        ("", "vicamo", "vicamo"),
        ("--install all", "", "tonistiigi"),
        ("-mount /m", "", "tonistiigi"),
        ("-mount /m", "linuxkit", "linuxkit"),
        ("-dir /d -mount /m", "", "linuxkit"),
        ("-mount /m --dir=/d", "", "linuxkit"),
        ("-dir /d", "tonistiigi", "tonistiigi"),
        ("--reset -p yes", "", "multiarch"),
        ("--reset", "vicamo", "multiarch"),
        ("-p yes", "multiarch", "multiarch"),
        ("--install --reset", "", "tonistiigi"),
    ],
)
def test_choice(words: str, named: str, chosen: str) -> None:
    """``--reset`` as the first word decides alone; without it the variable decides, and then ``-dir``."""
    assert choose(words.split(), {"BINFMTD_COMPAT": named}) == chosen
    if not named:
        assert choose(words.split(), {}) == chosen


def test_unknown() -> None:
    """An unknown name is an error that lists the known ones."""
    with pytest.raises(UsageError, match="'docker': write one of tonistiigi, linuxkit, multiarch, vicamo"):
        choose([], {"BINFMTD_COMPAT": "docker"})


@pytest.mark.parametrize(
    ("words", "variables", "last"),
    [
        ("", {"BINFMTD_COMPAT": "Tonistiigi"}, "$BINFMTD_COMPAT is 'Tonistiigi': write one of tonistiigi,"),
        ("x", {"BINFMTD_COMPAT": "vicamo"}, "vicamo/binfmt-qemu takes no arguments: leave out 'x'"),
        ("--reset", {"QEMU_BIN_DIR": "bin"}, "$QEMU_BIN_DIR is 'bin': write an absolute path"),
        ("", {"BINFMTD_NO_AUTOLOAD": "maybe"}, "$BINFMTD_NO_AUTOLOAD is 'maybe': write 1 or 0"),
        ("--version", {"QEMU_BINARY_PREFIX": "a/b"}, "$QEMU_BINARY_PREFIX is 'a/b': write a prefix without a slash,"),
        ("--version", {"QEMU_BINARY_PATH": "bin"}, "$QEMU_BINARY_PATH is 'bin': write an absolute path"),
    ],
)
def test_invalid_environments(words: str, variables: dict[str, str], last: str) -> None:
    """A variable with an invalid value is one clear line, exit status 2, and nothing on stdout."""
    result = run([*BINFMT, *words.split()], env=os.environ | variables)
    assert (result.status, result.stdout) == (2, "")
    assert result.stderr.startswith(last)
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("words", ["--reset -p", "--reset -p maybe", "--reset -x", "--reset extra"])
def test_multiarch_usage(words: str) -> None:
    """An option that multiarch/qemu-user-static lacks, or one without yes or no, ends with the usage and 2."""
    result = run([*BINFMT, *words.split()])
    assert (result.status, result.stdout) == (2, "")
    assert "\nusage: [--reset] [-p|--persistent yes|no]" in result.stderr


def test_help() -> None:
    """Help goes to stderr and succeeds; an unknown flag ends with 2 and the help text."""
    wanted = run([*BINFMT, "-help"])
    wrong = run([*BINFMT, "--fix"])
    assert (wanted.status, wanted.stdout, wrong.status, wrong.stdout) == (0, "", 2, "")
    assert wrong.stderr == f"flag provided but not defined: -fix\n{wanted.stderr}"
    assert wanted.stderr.startswith("Usage of binfmt:\n  -install string\n")


def test_version_without_emulators(tmp_path: Path) -> None:
    """The version is one line on stderr; without any emulator, QEMU's version is unknown."""
    result = run([*BINFMT, "--version"], env=os.environ | {"QEMU_BINARY_PATH": str(tmp_path)})
    assert (result.status, result.stdout) == (0, "")
    program, qemu, go = result.stderr.split(" ")
    assert (program.partition("/")[0], qemu, go.partition("/")[0]) == ("binfmt", "qemu/unknown", "go")


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("qemu-x version 10.0.13 (Debian 1:10.0.13+ds-0+deb13u1)", "v10.0.13"),
        ("qemu-x version 9.2.0-rc1", "v9.2.0-rc1"),
        ("something else", "unknown"),
    ],
)
def test_version_of_the_emulators(said: str, version: str, tmp_path: Path) -> None:
    """QEMU's version is the one that an installed emulator prints, written as in QEMU's tags."""
    install(tmp_path / "my-qemu-s390x-static", f"#!/bin/sh\necho '{said}'\n".encode())
    variables = {"QEMU_BINARY_PATH": str(tmp_path), "QEMU_BINARY_PREFIX": "my-"}
    result = run([*BINFMT, "-version"], env=os.environ | variables)
    assert (result.status, result.stdout, result.stderr.split(" ")[1]) == (0, "", f"qemu/{version}")


def test_options_are_variables_but_for_those_of_binfmtd(capsys: pytest.CaptureFixture[str]) -> None:
    """A message of `binfmt` names variables in place of options, except within a command of `binfmtd`.

    `binfmt` takes no such option, and the command of `binfmtd` would not work without it.
    """
    log_error(StateError("name another with --state-dir, then run `binfmtd reload --state-dir /run/binfmtd`"))
    said = "error: name another with BINFMTD_STATE_DIR, then run `binfmtd reload --state-dir /run/binfmtd`\n"
    assert capsys.readouterr().err == said
