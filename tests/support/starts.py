"""Programs that print what they find when they start (``start.c``), and what two of them found, compared."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import pytest

from binfmtd.formats.elf_settings import add_settings
from support.programs import install

SOURCE = Path(__file__).with_name("start.c")
EXIT_STATUS = 42
_OPTIONS = ("-O1", "-Wall", "-Wextra", "-Werror", "-nostdlib", "-ffreestanding", "-fno-builtin", "-fno-stack-protector")
KINDS = {"at a fixed address": ("-static", "-no-pie"), "position independent": ("-static-pie", "-fPIE")}
AT_PHDR, AT_PHNUM, AT_ENTRY, AT_RANDOM, AT_SYSINFO_EHDR = 3, 5, 9, 25, 33
_ADDRESSES = {AT_PHDR, AT_ENTRY, AT_RANDOM, AT_SYSINFO_EHDR, 15, 24, 31}  # AT_PLATFORM, AT_BASE_PLATFORM, AT_EXECFN
_COUNTS = {"loads"}


class Start(NamedTuple):
    """Everything that a program found: its lines, with the numbers of the auxiliary vector apart."""

    lines: tuple[tuple[str, str], ...]
    auxiliary: Mapping[int, int]

    @classmethod
    def parse(cls, output: str) -> Self:
        pairs = [line.partition(" ")[::2] for line in output.splitlines()]
        types = [int(text, 16) for word, text in pairs if word == "type"]
        values = [int(text, 16) for word, text in pairs if word == "value"]
        return cls(tuple(pair for pair in pairs if pair[0] != "value"), dict(zip(types, values, strict=True)))

    def all(self, word: str) -> list[str]:
        return [text for found, text in self.lines if found == word]

    @property
    def variables(self) -> list[str]:
        return self.all("variable")

    def compared(self) -> tuple[object, ...]:
        """Return everything that does not depend on addresses, or on the number of program headers."""
        numbers = {kind: value for kind, value in self.auxiliary.items() if kind not in {*_ADDRESSES, AT_PHNUM}}
        return ([pair for pair in self.lines if pair[0] not in _COUNTS], numbers)


def program(directory: Path, kind: str = "at a fixed address", compiler: str = "cc") -> Path:
    """Return the program, made by this compiler; skip without it."""
    if shutil.which(compiler) is None:
        pytest.skip(f"not here: {compiler}")
    if compiler == "cc" and os.uname().machine not in ("x86_64", "aarch64"):
        pytest.skip("start.c is for x86_64 and aarch64")
    path = directory / f"start-{compiler}-{kind.replace(' ', '-')}"
    subprocess.run([compiler, *_OPTIONS, *KINDS[kind], "-o", str(path), str(SOURCE)], check=True)
    return path


def with_settings(path: Path, settings: Mapping[str, str], name: str = "") -> Path:
    """Return a copy of a program that has these settings, beside it."""
    return install(path.with_name(name or f"{path.name}-set"), add_settings(path.read_bytes(), settings))


def start(
    command: Sequence[str | Path], environment: Mapping[str, str], executable: Path | None = None, **options: object
) -> Start:
    """Run a command with this environment alone."""
    done = subprocess.run(
        [str(word) for word in command],
        env=dict(environment),
        executable=executable,
        capture_output=True,
        text=True,
        check=False,
        **options,  # type: ignore[call-overload]
    )
    assert done.returncode == EXIT_STATUS, (done.returncode, done.stdout, done.stderr)
    return Start.parse(done.stdout)
