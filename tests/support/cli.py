"""The command line as a user runs it: each command a process, with its exit status, results and messages."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import sysconfig
import termios
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.instance import Instance
from support.schemas import check_output
from support.waiting import SLOWNESS

BINFMTD = (sys.executable, "-m", "binfmtd")
CHECKOUT = Path(__file__).parents[2]
TEXT: dict[str, Any] = {"capture_output": True, "text": True, "errors": "surrogateescape", "timeout": 60 * SLOWNESS}
NOBODY = "65534"
AS_ORDINARY_USER = ("setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups")


@dataclass(frozen=True, slots=True)
class Result:
    """The exit status of a command, its results on stdout and its messages on stderr."""

    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.stdout)

    @property
    def rows(self) -> list[list[str]]:
        """The words of each line on stdout."""
        return [line.split() for line in self.stdout.splitlines()]

    @property
    def messages(self) -> list[str]:
        """The lines on stderr, each of which has to be a message of ours: a traceback fails the test."""
        lines = self.stderr.splitlines()
        assert all(line.startswith("binfmtd: ") for line in lines), self.stderr
        return [line.removeprefix("binfmtd: ") for line in lines]

    @property
    def message(self) -> str:
        """The only line on stderr."""
        messages = self.messages
        assert len(messages) == 1, self.stderr
        return messages[0]


def run(command: Iterable[str], **options: Any) -> Result:
    """Run any command to its end; a document that one of binfmtd's commands prints has to fit its schema."""
    words = list(command)
    done = subprocess.run(words, check=False, **(TEXT | options))
    check_output(words, done.stdout or "")
    return Result(done.returncode, done.stdout or "", done.stderr or "")


class Cli:
    """``binfmtd COMMAND`` inside a private instance, with a state directory and a config of its own."""

    def __init__(self, instance: Instance, directory: Path) -> None:
        self.instance = instance
        self.state_directory = directory / "state"
        self.config = directory / "binfmtd.toml"

    def command(self, *arguments: str) -> list[str]:
        """Return the command line that enters the instance and runs binfmtd there."""
        environment = ["env", f"BINFMTD_STATE_DIR={self.state_directory}"]
        return self.instance.entering([*environment, *BINFMTD, *arguments])

    def __call__(self, *arguments: str, config: str | None = None) -> Result:
        """Run it to its end; ``config`` is written to its file, and named with ``--config``."""
        if config is not None:
            self.config.write_text(config)
            arguments = (*arguments, "--config", str(self.config))
        return run(self.command(*arguments))

    def on_a_terminal(self, *arguments: str) -> list[str]:
        """Return the lines that it prints on a terminal, without colours."""
        ours, its = pty.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        environment = {"TERM": "xterm"} | {key: value for key, value in os.environ.items() if key != "COLUMNS"}
        with (
            os.fdopen(ours, "rb") as output,
            subprocess.Popen(self.command(*arguments), stdin=its, stdout=its, stderr=its, env=environment),
        ):
            os.close(its)
            text = b""
            with suppress(OSError):  # EIO when it has ended
                while got := os.read(output.fileno(), 65536):
                    text += got
        return re.sub("\x1b\\[[0-9;]*m", "", text.decode()).splitlines()


def fake_emulators(directory: Path, names: Iterable[str]) -> str:
    """Make a program for each architecture, and return the config that has emulators there and nowhere else.

    None of them emulates anything: they are for tests that execute no foreign program.
    """
    directory.mkdir()
    for name in names:
        (directory / f"qemu-{name}").symlink_to("/usr/bin/true")
    return f"[emulators]\npaths = ['{directory}/qemu-{{name}}']\n"


def state(instance: Instance) -> dict[str, tuple[int, str]]:
    """Return every entry with its inode number and text: equal states mean that no program changed anything."""
    return {name: (instance.inode(name), instance.read(name)) for name in instance.names()}


def unprivileged_python() -> list[str]:
    """Return the command line of a Python that can import binfmtd and has no privileges.

    If the tests run as root, it runs as the user ``nobody``.  Skip if that user can read no such Python or checkout.
    """
    if os.geteuid() != 0:
        return [sys.executable]
    path = f"{CHECKOUT}:{sysconfig.get_path('purelib')}"
    user = [*AS_ORDINARY_USER, "env", "-u", "XDG_RUNTIME_DIR"]
    user += ["-u", "BINFMTD_STATE_DIR", f"PYTHONPATH={path}"]
    same = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/bin/{same}", f"/usr/local/bin/{same}"):
        command = [*user, python]
        if (
            run(
                [*command, "-c", "import binfmtd.config.schema, binfmtd.daemon.watches.inotify, structlog"], cwd="/"
            ).status
            == 0
        ):
            return command
    pytest.skip(f"nobody may not read this Python ({os.path.realpath(sys.executable)}) or this checkout")
