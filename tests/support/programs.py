"""Tiny native programs with a chosen exit status: as interpreters they show which of them ran."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from binfmtd.catalog.architecture import Architecture
from binfmtd.catalog.names import find
from binfmtd.catalog.program import tiny_program

# An architecture whose programs this machine does not run by itself.
FOREIGN = "riscv64" if os.uname().machine == "aarch64" else "aarch64"
# Those that a machine of the suite may run by itself.
NATIVE = {"aarch64": ("aarch64", "arm"), "s390x": ("s390x",)}.get(os.uname().machine, ("i386", "x86_64"))

# Machine code of exit(status), where the catalog's has 42.
_EXITS: dict[str, Callable[[int], bytes]] = {
    "x86_64": lambda status: b"\xb8\x3c\0\0\0\xbf" + status.to_bytes(4, "little") + b"\x0f\x05",
    "aarch64": lambda status: (
        bytes.fromhex("a80b80d2") + (0xD2800000 | status << 5).to_bytes(4, "little") + bytes.fromhex("010000d4")
    ),
}
# Machine code of waiting for ever: pause(), or where that is missing ppoll() of nothing (an exec zeroes registers).
_WAITS = {"x86_64": b"\xb8\x22\0\0\0\x0f\x05", "aarch64": bytes.fromhex("280980d2 010000d4")}

# Machine code of a read at address 0.
_CRASHES = {"x86_64": b"\x31\xc0\x8b\x00", "aarch64": bytes.fromhex("000080d2 000040f9")}


def exits_with(status: int) -> bytes:
    """Return a native program; skip on a machine whose code is missing here."""
    machine = os.uname().machine
    if machine not in _EXITS:
        pytest.skip(f"no machine code for exit on {machine}: only for {', '.join(_EXITS)}")
    return _program(machine, _EXITS[machine](status))


def waits(number: int) -> bytes:
    """Return a native program that waits for ever; its content differs for each number."""
    machine = os.uname().machine
    if machine not in _WAITS:
        pytest.skip(f"no machine code for waiting on {machine}: only for {', '.join(_WAITS)}")
    return _program(machine, _WAITS[machine]) + bytes((number,))


def crashes() -> bytes:
    """Return a native program that is killed by SIGSEGV."""
    machine = os.uname().machine
    if machine not in _CRASHES:
        pytest.skip(f"no machine code for a crash on {machine}: only for {', '.join(_CRASHES)}")
    return _program(machine, _CRASHES[machine])


def _program(machine: str, code: bytes) -> bytes:
    native = find(machine)
    size = len(tiny_program(native))
    return (tiny_program(native).removesuffix(native.exit42) + code).ljust(size, b"\0")


def install(path: Path, content: bytes) -> Path:
    """Install an executable as dpkg does: write it beside the path, then rename it."""
    beside = path.with_name(path.name + ".dpkg-new")
    beside.write_bytes(content)
    beside.chmod(0o755)
    beside.rename(path)
    return path


def foreign_program(path: Path, architecture: Architecture) -> Path:
    """Install a program of that architecture, which exits with 42 in its emulator."""
    return install(path, tiny_program(architecture))
