"""The behaviour that all commands share, as far as it needs no binfmt_misc."""

import importlib
import os
import select
import subprocess
import sys
from pathlib import Path

import pytest
from support.cli import BINFMTD, run
from support.daemon import DEADLINE_SECONDS

from binfmtd import __version__
from binfmtd.cli.main import COMMANDS, help_text, module_of

ENTRYPOINT = "write the command alone, since an image's entrypoint is `binfmtd` already"
TO_REGISTER = "to register architectures, write `binfmtd apply --arch {}`"
BINFMT = "which is part of binfmtd: run `binfmt {}` (in a container, use the image binfmt)"
BUFFERED = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_the_commands(arguments: list[str]) -> None:
    """Without arguments, and when asked for help, `binfmtd` lists every command on stdout and succeeds."""
    result = run([*BINFMTD, *arguments])
    assert (result.status, result.stderr) == (0, "")
    assert result.stdout.startswith("usage: binfmtd COMMAND")
    assert set(COMMANDS) <= {row[0] for row in result.rows if row}


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_breaks_no_word(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """Options, names and paths with hyphens stay whole in 80 columns and more, and no line exceeds the width."""

    def text(width: int) -> str:
        monkeypatch.setenv("COLUMNS", str(width))
        written: str = importlib.import_module(module_of(command)).parser().format_help() if command else help_text()
        return written

    for columns in range(80, 131):
        assert max(map(len, text(columns).splitlines())) <= columns
        assert text(columns).split() == text(2000).split(), columns


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(command: str) -> None:
    """Each command's help names it and its options, on stdout."""
    result = run([*BINFMTD, command, "--help"])
    assert (result.status, result.stderr) == (0, "")
    assert result.stdout.startswith(f"usage: binfmtd {command} ")
    assert "--help" in result.stdout


def test_version() -> None:
    """The version is one line on stdout."""
    for option in ("--version", "-V"):
        result = run([*BINFMTD, option])
        assert (result.status, result.stdout, result.stderr) == (0, f"binfmtd {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stats"], "unknown command 'stats': did you mean status?"),
        (["binfmtd", "status"], f"unknown command 'binfmtd': {ENTRYPOINT}"),
        *(([word], f"unknown command {word!r}: {TO_REGISTER.format(word)}") for word in ("arm64,riscv64", "all")),
        (["zzz"], "unknown command 'zzz': see binfmtd --help"),
        ([""], "unknown command '': see binfmtd --help"),
        (["\x1b[31mred"], "unknown command '\\x1b[31mred': see binfmtd --help"),
        (["plan", "--jsn"], "unrecognized arguments: --jsn: see `binfmtd plan --help`"),
        (["plan", "extra"], "unrecognized arguments: extra: see `binfmtd plan --help`"),
        (["plan", "--config"], "argument --config: expected one argument: see `binfmtd plan --help`"),
        (["--jsn"], "unrecognized arguments: --jsn: see `binfmtd apply --help`"),
        (["--install", "arm64"], "--install is an option of the command `binfmt`, " + BINFMT.format("--install arm64")),
        (
            ["apply", "--uninstall=all"],
            "--uninstall is an option of the command `binfmt`, " + BINFMT.format("--uninstall=all"),
        ),
        (["arch", "amr64"], "unknown architecture 'amr64': did you mean arm64, amd64 or sparc64?"),
        (["arch", "arm", "zzz"], "unknown architecture 'zzz': `binfmtd arch` lists the known ones"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str) -> None:
    """A word that does not exist ends with status 2 and one line that names the right one, or where to find it."""
    result = run([*BINFMTD, *arguments])
    assert (result.status, result.stdout, result.message) == (2, "", message)


@pytest.mark.parametrize(
    ("value", "status", "said"), [("0", 0, "usage: binfmtd COMMAND"), ("maybe", 2, "write 1 or 0")]
)
def test_a_variable_that_asks_for_nothing(value: str, status: int, said: str) -> None:
    """$BINFMTD_PERSISTENT alone means `apply`, but not if it is off."""
    result = run(BINFMTD, env=os.environ | {"BINFMTD_PERSISTENT": value})
    assert result.status == status
    assert said in result.stdout + result.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["plan", "--help"]])
def test_the_outputs_reader_has_exited(arguments: list[str]) -> None:
    """If the other end of stdout's pipe is closed, `binfmtd` ends with status 1 and prints no message."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        result = run([*BINFMTD, *arguments], capture_output=False, stdout=writing, stderr=-1, env=BUFFERED)
    finally:
        os.close(writing)
    assert (result.status, result.stderr) == (1, "")


def test_no_room_for_the_output() -> None:
    """If stdout cannot be written, `binfmtd` prints the reason in one line."""
    with Path("/dev/full").open("w") as full:
        result = run([*BINFMTD, "--version"], capture_output=False, stdout=full, stderr=-1, env=BUFFERED)
    assert (result.status, result.message) == (1, "standard output: No space left on device: make room")


def test_an_output_without_a_buffer() -> None:
    """With $PYTHONUNBUFFERED each line is written at once."""
    code = "from binfmtd.cli.main import start; start(lambda _: print('one') or len(input()))"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdin
        assert process.stdout
        assert select.select([process.stdout], [], [], DEADLINE_SECONDS)[0]
        assert process.stdout.readline() == b"one\n"
        process.stdin.write(b"\n")
        process.stdin.close()
    assert process.returncode == 0


def test_the_output_is_utf_8(tmp_path: Path) -> None:
    """Stdout is UTF-8, as TOML has to be, whatever encoding the environment asks for."""
    conf = tmp_path / "a.conf"
    conf.write_text(":ä:E::a::/bin/ä:\n")
    result = run([*BINFMTD, "import", str(conf)], env=os.environ | {"PYTHONIOENCODING": "ascii"}, encoding="utf-8")
    assert (result.status, '[handlers."ä"]' in result.stdout) == (0, True)


def test_no_room_for_a_message() -> None:
    """A message that cannot be written to stderr is lost, and the exit status stays as it is."""
    with Path("/dev/full").open("w") as full:
        result = run([*BINFMTD, "stats"], capture_output=False, stdout=-1, stderr=full)
    assert (result.status, result.stdout) == (2, "")


def test_streams_may_be_closed() -> None:
    """A closed stdout does not change the exit status; with a closed stderr no message goes to stdout."""
    result = run(["sh", "-c", '"$@" >&-', "sh", *BINFMTD, "--version"])
    assert (result.status, result.stdout, result.stderr) == (0, "", "")
    result = run(["sh", "-c", '"$@" 2>&-', "sh", *BINFMTD, "stats"])
    assert (result.status, result.stdout) == (2, "")
