"""Which commands need root: the table of binfmtd(8) is compared with what an ordinary user gets from each of them."""

import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.cli import BINFMTD, CHECKOUT, Result, run, unprivileged_python
from support.daemon import Daemon
from support.instance import Instance
from support.stores import ENVIRONMENT, emulators, three

from binfmtd.cli.commands.emulators import SUBCOMMANDS
from binfmtd.cli.main import COMMANDS

MANUAL = CHECKOUT / "docs" / "man" / "binfmtd.8.md"
VERSION = "one"
# The arguments of a command, if it requires some or if those make it faster; {} is a directory of the user.
ARGUMENTS = {
    "wait": ("aarch64",),
    "explain": ("/bin/true",),
    "arch": ("riscv64",),
    "probe": ("riscv64",),
    "export": ("--format", "binfmt.d"),
    "sandbox": ("--arch", "none", "--", "true"),
    "emulators verify": (VERSION,),
    "emulators export": (VERSION, "{}/archive.tar"),
    "emulators pull": ("registry.invalid/image",),
    "emulators import": ("{}/source", "--name", "two"),
    "emulators configure": (VERSION, "--name", "two", "QEMU_CPU=max"),
    "emulators remove": (VERSION,),
}
WITHOUT_STATE_DIR = ("import", "sandbox")
# Their exit status also depends on this host's own handlers.
DEPEND_ON_HOST = ("doctor", "probe")
NAMES_ROOT = re.compile(r"run (this )?as (root|that user or as root)")
REFUSALS = re.compile(r"Permission denied|[Rr]un (this )?as root|not permitted")
NOT_RUN = {
    "export --remove",  # it would change files of this host
    "emulators pull",  # it requires a registry
}


def table() -> dict[str, bool]:
    """Return for each command of the manual's table if it needs root."""
    section = MANUAL.read_text(encoding="utf-8").partition("\n## PRIVILEGES\n")[2].partition("\n## ")[0]
    found = {}
    for cell, needed in re.findall(r"(?m)^\| (`.+`) \| (yes|no)\b.*\|$", section):
        first, *others = re.findall("`(.+?)`", cell)
        group = "emulators " if first.startswith("emulators ") else ""
        for name in (first, *(group + other for other in others)):
            found[name] = needed == "yes"
    return found


def test_the_table_has_every_command() -> None:
    """The table has each command and each subcommand, and the options that need more than their commands."""
    commands = [name for name in COMMANDS if name != "emulators"]
    subcommands = [f"emulators {name}" for name in SUBCOMMANDS]
    assert sorted(table()) == sorted([*commands, *subcommands, "probe --write", "arch --record", "export --remove"])


@pytest.fixture(scope="module")
def as_user(module_instance: Instance) -> Iterator[Callable[[str], Result]]:
    """Yield a function that runs a command as an ordinary user, beside root's daemon and root's store."""
    if os.geteuid() != 0:
        pytest.skip("only root can run a daemon that belongs to another user than the command")
    python = [*unprivileged_python(), "-m", "binfmtd"]
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        (own := directory / "own").mkdir()
        own.chmod(0o777)
        emulators(own / "source", three("9.2.2"))
        state, store, config = directory / "state", directory / "store", directory / "daemon" / "binfmtd.toml"
        add = [*BINFMTD, "emulators", "import", str(own / "source"), "--name", VERSION, "--store", str(store)]
        assert run(add, env=ENVIRONMENT).status == 0
        daemon = Daemon(module_instance, config.parent, 'architectures = ["arm64"]\n', ("--state-dir", str(state)))
        daemon.wait_ready()
        enter = ["nsenter", "--mount", "--target", str(module_instance.pid), "--", *python]

        def as_user(command: str) -> Result:
            arguments = [argument.format(own) for argument in ARGUMENTS.get(command, ())]
            options = ["--config", str(config)]
            if command.startswith("emulators "):
                options += ["--store", str(store)]
            elif command not in WITHOUT_STATE_DIR:
                options += ["--state-dir", str(state)]
            return run([*enter, *command.split(), *options, *arguments], cwd="/")

        try:
            yield as_user
        finally:
            daemon.close()


@pytest.mark.parametrize("command", [name for name, needed in table().items() if not needed])
def test_without_root(as_user: Callable[[str], Result], command: str) -> None:
    """For an ordinary user the command does its work, and no right is missing."""
    done = as_user(command)
    assert not REFUSALS.search(done.stderr), done.stderr
    assert done.status in ((0, 1) if command in DEPEND_ON_HOST else (0,)), done.stderr


@pytest.mark.parametrize("command", [name for name, needed in table().items() if needed and name not in NOT_RUN])
def test_with_root(as_user: Callable[[str], Result], command: str) -> None:
    """For an ordinary user the command fails with 1 and one message that names root."""
    done = as_user(command)
    assert done.status == 1
    assert NAMES_ROOT.search(done.message), done.message
