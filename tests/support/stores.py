"""Stores of emulators for tests, in directories of their own, and the command that reads and writes them."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from binfmtd.model.emulator_version import MANIFEST
from support.cli import BINFMTD, Result, run
from support.programs import install
from support.tiny_emulators import tiny_emulator

ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "BINFMTD_STORE"}


class StoreCli:
    """``binfmtd emulators`` on the store at ``path``, with a config of its own."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self.path = directory / "store"
        self.config = directory / "binfmtd.toml"
        self.config.write_text("architectures = []\n")
        self._mount = directory / "no-binfmt_misc"

    def command(self, subcommand: str, *arguments: str) -> list[str]:
        """Return the command line; the host's config and entries are not read."""
        given = [f"--store={self.path}", f"--config={self.config}"]
        if subcommand in ("list", "remove", "prune"):
            given += [f"--mount={self._mount}"]
        return [*BINFMTD, "emulators", subcommand, *given, *arguments]

    def __call__(self, subcommand: str, *arguments: str, **options: Any) -> Result:
        """Run it to its end; a traceback fails the test."""
        result = run(self.command(subcommand, *arguments), **({"env": ENVIRONMENT} | options))
        assert "Traceback" not in result.stderr, result.stderr
        return result

    def checked(self, subcommand: str, *arguments: str) -> Result:
        """Run it; AssertionError with its messages if it fails."""
        result = self(subcommand, *arguments)
        assert result.status == 0, result.stderr
        return result

    @property
    def versions(self) -> list[str]:
        """The names of the versions, as `list` has them."""
        return [version["name"] for version in self.checked("list", "--json").json]

    def hidden(self) -> list[str]:
        """Return what is in the store's directory beside versions; nothing if there is no such directory."""
        if not self.path.exists():
            return []
        return sorted(name for name in os.listdir(self.path) if name.startswith("."))

    def manifest(self, name: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.path / name / MANIFEST).read_text())
        return document

    def checksums(self, name: str) -> dict[str, str]:
        """Return the checksum of each file of a version, as its manifest has it."""
        return {file: facts["sha256"] for file, facts in self.manifest(name)["files"].items()}


def emulators(directory: Path, files: Mapping[str, bytes]) -> str:
    """Write these files into a new directory, and return its path."""
    directory.mkdir(parents=True)
    for name, content in files.items():
        install(directory / name, content)
    return str(directory)


def three(version: str, content: bytes = b"") -> dict[str, bytes]:
    """Return three emulators of one version."""
    return {f"qemu-{name}": tiny_emulator(version, name.encode() + content) for name in ("aarch64", "arm", "riscv64")}
