"""A file system in a test's instance that can be made to hang: see ``fuse_server``."""

import subprocess
import sys
from pathlib import Path

import pytest

from support.instance import Instance

SERVER = Path(__file__).with_name("fuse_server.py")


class HangingFileSystem:
    """The file system, at ``directory`` for the processes in the instance; its files lie in ``backing``."""

    def __init__(self, instance: Instance, directory: Path, backing: Path) -> None:
        directory.mkdir(exist_ok=True)
        backing.mkdir(exist_ok=True)
        self.directory = directory
        self.backing = backing
        self._server = instance.popen(
            [sys.executable, str(SERVER), str(directory), str(backing)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if self._answer() != "mounted":
            assert self._server.stderr is not None
            pytest.skip(f"FUSE cannot be used here: {self._server.stderr.read().strip().splitlines()[-1:]}")

    def hang(self) -> None:
        """Answer no request from now on."""
        self._say("hang")

    def answer(self) -> None:
        """Answer again, the requests of the meantime as well."""
        self._say("answer")

    def _say(self, word: str) -> None:
        assert self._server.stdin is not None
        self._server.stdin.write(f"{word}\n")
        self._server.stdin.flush()
        assert self._answer() == word

    def _answer(self) -> str:
        assert self._server.stdout is not None
        return str(self._server.stdout.readline()).strip()

    def end(self) -> None:
        """End the server: every request fails from now on."""
        self._server.kill()
        self._server.wait()
