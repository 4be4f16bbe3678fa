"""A script as interpreter: what the kernel does with it in and outside of a chroot, and what binfmtd says of it."""

import sys
from errno import ENOENT, ENOEXEC
from pathlib import Path

import pytest
from support.cli import Cli
from support.daemon import Daemon
from support.doctor import StartDaemon
from support.instance import Instance
from support.programs import FOREIGN, exits_with, install

from binfmtd.model.match import Extension

CONFIG = "architectures = []\n[handlers.one]\nextension = 'one'\ninterpreter = '{}'\n"
SCRIPTS, SHELLS = 103, 107
EXEC = """
import os, sys
os.chroot(sys.argv[1])
try:
    os.execv(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit(error.errno)
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """Return an interpreter that is a script, and ends with status 103."""
    return install(tmp_path / "script", f"#!/bin/sh\nexit {SCRIPTS}\n".encode())


@pytest.mark.parametrize(
    ("flags", "outside", "bare", "with_shell"),
    [
        ("F", SCRIPTS, ENOENT, SHELLS),
        ("", SCRIPTS, ENOENT, ENOENT),
        ("OF", ENOEXEC, ENOENT, ENOEXEC),
        ("O", ENOEXEC, ENOENT, ENOENT),
    ],
)
def test_in_a_chroot(
    instance: Instance, script: Path, tmp_path: Path, flags: str, outside: int, bare: int, with_shell: int
) -> None:
    """With F the kernel opens the script at registration, but looks up the program in its first line at each exec.

    So in a bare chroot each exec fails with ENOENT.  If that has a /bin/sh, this runs, and gets the script's path, at
    which the chroot has no file.  Without F the script itself is looked up.  With O each exec fails.
    """
    for root in (tmp_path / "bare", tmp_path / "with_shell"):
        root.mkdir()
        install(root / "program.one", b"anything\n")
    (tmp_path / "with_shell" / "bin").mkdir()
    install(tmp_path / "with_shell" / "bin" / "sh", exits_with(SHELLS))
    instance.add("one", Extension("one"), script, flags)

    def status(root: str, program: str = "/program.one") -> int:
        return instance.run([sys.executable, "-c", EXEC, root, program]).returncode

    assert status("/", f"{tmp_path}/bare/program.one") == outside
    assert status(f"{tmp_path}/bare") == bare
    assert status(f"{tmp_path}/with_shell") == with_shell


def test_check(cli: Cli, script: Path) -> None:
    """`check` refuses a script with F: status 78, with the flags that the handler can have.  Without F it is valid."""
    result = cli("check", config=CONFIG.format(script) + "flags = 'POF'\n")
    assert result.status == 78
    assert result.message.startswith(f"one: refused: {script} is a script, which flag F does not carry into containers")
    assert 'set flags = "P" if the handler is meant for this root alone' in result.message
    assert result.message.endswith(f"({cli.config} [handlers.one])")
    for flags in ("flags = 'P'\n", "flags = ''\n", "flags = 'POF'\nforce = true\n"):
        assert cli("check", config=CONFIG.format(script) + flags).status == 0


def test_check_of_an_emulator(cli: Cli, script: Path) -> None:
    """An architecture's emulator has F by default, so a script is refused there without any flag in the config."""
    config = f"architectures = ['{FOREIGN}']\n[emulators.{FOREIGN}]\ninterpreter = '{script}'\n"
    result = cli("check", config=config)
    assert result.status == 78
    assert result.message.startswith(f"qemu-{FOREIGN}: refused: {script} is a script, ")
    assert cli("check", config=config + "flags = 'PO'\n").status == 0


def test_the_daemon(start_daemon: StartDaemon, instance: Instance, script: Path) -> None:
    """The daemon registers no script with F, reports the reason, and registers the program that replaces it."""
    daemon: Daemon = start_daemon(CONFIG.format(script) + "flags = 'F'\n")
    refused = daemon.wait_status(lambda status: status["handlers"][0]["state"] == "refused", "the refusal")
    assert "is a script, which flag F does not carry" in refused["handlers"][0]["reason"]
    assert instance.names() == []
    install(script, exits_with(0))
    daemon.wait_status(lambda status: status["state"] == "converged" and instance.names(), "the handler")
