"""Tiny programs: another reader of ELF files finds them well-formed, and the real emulators run them."""

import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.programs import foreign_program

from binfmtd.catalog.architectures import CATALOG, Architecture
from binfmtd.catalog.elf import ElfHeader
from binfmtd.catalog.names import find
from binfmtd.catalog.program import tiny_program
from binfmtd.errors import FormatError
from binfmtd.model.guard import NativeHeader


def exit_status(architecture: Architecture, directory: Path, *emulator: str) -> tuple[int, bytes]:
    """Run the tiny program; return its exit status and its output."""
    path = foreign_program(directory / "tiny", architecture)
    ran = subprocess.run([*emulator, path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30, check=False)
    return ran.returncode, ran.stdout


@pytest.mark.parametrize("architecture", CATALOG.values(), ids=CATALOG)
def test_emulator_runs_it(architecture: Architecture, tmp_path: Path) -> None:
    """An architecture's own emulator runs its tiny program to exit status 42, without output."""
    emulator = shutil.which(f"qemu-{architecture.name}") or shutil.which(f"qemu-{architecture.name}-static")
    if emulator is None:
        pytest.skip(f"qemu-{architecture.name} is not installed: apt-get install qemu-user")
    assert exit_status(architecture, tmp_path, emulator) == (42, b"")


def test_kernel_runs_the_native_one(tmp_path: Path) -> None:
    """The kernel's own loader runs the file as well; by that the daemon finds what runs natively."""
    try:
        native = find(platform.machine())
    except FormatError:
        pytest.skip(f"QEMU has no target for this machine, {platform.machine()}")
    assert exit_status(native, tmp_path) == (42, b"")


@pytest.mark.parametrize("architecture", CATALOG.values(), ids=CATALOG)
def test_the_header_has_the_architecture(architecture: Architecture) -> None:
    """Another reader of ELF headers finds class, byte order and machine as the catalog has them."""
    header = architecture.header
    expected = NativeHeader(header.bits // 32, {"little": 1, "big": 2}[header.byte_order], header.e_machine)
    assert NativeHeader.parse(tiny_program(architecture)) == expected


@pytest.mark.parametrize("architecture", CATALOG.values(), ids=CATALOG)
def test_size_is_headers_and_code(architecture: Architecture) -> None:
    """A tiny program is two headers and the code, so it fits into any page and starts in an instant."""
    program = tiny_program(architecture)
    assert len(program) == {32: 52 + 32, 64: 64 + 56}[architecture.header.bits] + len(architecture.exit42)
    assert 90 <= len(program) <= 132


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize(
    ("bits", "word", "places"),
    [
        (32, 4, {"e_entry": 24, "e_flags": 36, "p_vaddr": 52 + 8, "p_filesz": 52 + 16, "p_memsz": 52 + 20}),
        (64, 8, {"e_entry": 24, "e_flags": 48, "p_vaddr": 64 + 16, "p_filesz": 64 + 32, "p_memsz": 64 + 40}),
    ],
)
def test_entry_point_is_the_code(bits: Any, word: int, places: dict[str, int], order: Any) -> None:
    """The whole file is loaded, and execution starts at its code; the offsets are those of the ABI's tables."""
    program = tiny_program(Architecture("any", ElfHeader(bits, order, 0x1234, e_flags=0x12345678), b"the code"))

    def number(field: str, size: int = word) -> int:
        return int.from_bytes(program[places[field] : places[field] + size], order)

    assert program[number("e_entry") - number("p_vaddr") :] == b"the code"
    assert number("p_filesz") == number("p_memsz") == len(program)
    assert number("e_flags", 4) == 0x12345678
