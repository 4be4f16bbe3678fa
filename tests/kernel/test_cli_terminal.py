"""On a terminal of 80 columns lines are broken between words; a pipe gets whole lines."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

from support.cli import Cli
from support.instance import Instance
from support.programs import foreign_program

from binfmtd.catalog.architectures import CATALOG

LONG = "/usr/libexec/a-directory-with-a-long-name/and-another-one"
CONFIG = f"""
architectures = []
[handlers.one]
magic = '\\x00one-and-twenty-bytes'
interpreter = "{LONG}/interpreter-of-one"
[handlers.a-handler-with-a-long-name]
magic = '\\x00two'
interpreter = "/usr/bin/true"
flags = "F"
"""


def test_plan(instance: Instance, cli: Cli) -> None:
    """`plan` wraps its reasons, whatever tool wrote the entry; each has the actual value, then the declared one."""
    instance.register(b":a-handler-with-a-long-name:M::\\x00twice::" + LONG.encode() + b"/other-interpreter:PC")
    cli.config.write_text(CONFIG)
    lines = cli.on_a_terminal("plan", "--config", str(cli.config))
    fits(lines)
    reason = (
        f"interpreter is {LONG}/other-interpreter, should be /usr/bin/true; flags are POC, should be F; "
        "magic is 007477696365, should be 0074776f"
    )
    assert reason.split() == [word for word in words(lines) if word in reason.split()][-len(reason.split()) :]
    piped = cli("plan", config=CONFIG).stdout.splitlines()
    assert [line.split(maxsplit=3)[3] for line in piped[1:]] == [reason]


def test_arch(cli: Cli) -> None:
    """`arch` breaks no name of an architecture."""
    lines = cli.on_a_terminal("arch", "arm")
    fits(lines)
    assert set(CATALOG["arm"].aliases) <= set(words(lines))
    assert len(cli("arch", "arm").stdout.splitlines()) == 2


def test_explain(cli: Cli) -> None:
    """`explain` wraps its sentences; only a word longer than a line has its own line."""
    foreign = "s390x" if os.uname().machine == "aarch64" else "aarch64"
    with TemporaryDirectory(dir="/tmp") as directory:  # a short path
        program = foreign_program(Path(directory) / "program", CATALOG[foreign])
        lines = cli.on_a_terminal("explain", str(program))
        fits(lines)
        assert words(lines) == cli("explain", str(program)).stdout.split()


def test_messages(cli: Cli) -> None:
    """Messages on standard error are wrapped, too."""
    lines = cli.on_a_terminal("plan", "--config", "/nowhere/at/all/there-is-no-such-file.toml", "--arch", "nonsense")
    fits(lines)
    assert lines[0].startswith("binfmtd: ")


def words(lines: list[str]) -> list[str]:
    return " ".join(lines).split()


def fits(lines: list[str]) -> None:
    assert lines
    assert all(len(line) <= 80 or len(line.split()) == 1 for line in lines), "\n".join(lines)
