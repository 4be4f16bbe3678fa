"""Every command with less than it needs prints at most one line about what is missing, and never a traceback."""

import os
import sys
from pathlib import Path

import pytest
from support.cli import BINFMTD, TEXT, Cli, Result, run
from support.instance import Instance
from support.waiting import SLOWNESS

from binfmtd.cli.main import COMMANDS
from binfmtd.files.distribution import install_module

ARGUMENTS = {
    "wait": ["arm64", "--timeout", "0"],
    "explain": ["/bin/true"],
    "export": ["--format", "shell"],
    "sandbox": ["--", "true"],
    "reload": ["--timeout", "0"],
    "emulators": ["list", "--store", "/nowhere"],
    "status": ["--check"],
}
CONFIG = "architectures = []\n[handlers.one]\nmagic = '\\x00one'\ninterpreter = '/usr/bin/true'\n"
WITHOUT = "import sys; sys.modules[{module!r}] = None; from binfmtd.cli.main import entry; entry()"
GOES_ON = ("timeout", "--preserve-status", f"{3 * SLOWNESS}")  # for the daemon, which then ends without an error
DAEMON = "run"


@pytest.fixture
def cli(module_instance: Instance, tmp_path: Path) -> Cli:
    cli = Cli(module_instance, tmp_path)
    cli.config.write_text(CONFIG)
    return cli


def little(cli: Cli, command: str, setting: str, python: tuple[str, ...] = BINFMTD, **options: object) -> Result:
    """Run a command after a setting of the shell."""
    environment = ["env", f"BINFMTD_STATE_DIR={cli.state_directory}", f"BINFMTD_CONFIG={cli.config}"]
    argv = [*(GOES_ON if command == DAEMON else ()), *environment, *python, command, *ARGUMENTS.get(command, [])]
    return run(cli.instance.entering(["sh", "-c", f'{setting}; exec "$@"', "sh", *argv]), **options)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "setting",
    [
        "ulimit -n 8",
        "ulimit -f 0",
        "exec <&- >&- 2>&-",
        'export PYTHONWARNINGS=error; unset HOME; d=$(mktemp -d); cd "$d"; rmdir "$d"',
    ],
)
def test_less(cli: Cli, tmp_path: Path, command: str, setting: str) -> None:
    """No traceback with few descriptors, no growing files, closed streams, warnings as errors, or no home."""
    with (tmp_path / "output").open("w") as output:
        result = little(cli, command, setting, stdout=output, stderr=-1, capture_output=False)
    assert "Traceback" not in result.stderr
    assert result.status in (0, 1, 2, 3, 128 + 15), result.stderr


@pytest.mark.parametrize(
    ("module", "needs"),
    [("pydantic", ["check", "plan", "run"]), ("structlog", ["run"]), ("pyinotify", ["run", "wait"])],
)
def test_a_package_is_missing(cli: Cli, module: str, needs: list[str]) -> None:
    """A command that needs the package names it and how to install it; the other commands work without it."""
    python = (sys.executable, "-c", WITHOUT.format(module=module))
    for command in needs:
        result = little(cli, command, ":", python)
        message = f"the Python package {module} is missing: run `{install_module(module)}`"
        assert (result.status, result.stdout, result.message) == (1, "", message)
    assert "Python package" not in little(cli, "status", ":", python).stderr


def test_what_children_get(cli: Cli) -> None:
    """The command in a sandbox gets /dev/null for a closed stream, and none of our files."""
    links = "readlink /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 >'{}'"
    seen = cli.state_directory.parent / "seen"
    command = [*BINFMTD, "sandbox", "--log-level", "error", "--", "sh", "-c", links.format(seen)]
    run(["sh", "-c", 'exec <&- 2>&-; exec "$@"', "sh", *command], **TEXT)
    assert seen.read_text().splitlines()[::2] == [os.devnull, os.devnull]
