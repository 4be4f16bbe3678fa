"""The emulator at a path: its kind, its version without running it, and whether its address is fixed."""

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from support.programs import install

from binfmtd.catalog.architectures import CATALOG
from binfmtd.catalog.known_faults import Emulation, Emulator
from binfmtd.catalog.program import tiny_program
from binfmtd.host.emulations import emulation, host_conditions, version_in
from binfmtd.model.handler import Flags

BLOCK = 1 << 20  # that is read at once


def test_a_real_emulator() -> None:
    """The version in the file of a real QEMU is the one that it prints."""
    path = shutil.which("qemu-aarch64") or shutil.which("qemu-x86_64") or shutil.which("qemu-aarch64-static")
    if path is None:
        pytest.skip("no qemu-aarch64 or qemu-x86_64 is installed: apt-get install qemu-user")
    printed = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout.split()[2]
    assert version_in(path) == tuple(map(int, printed.split(".")))


@pytest.mark.parametrize("before", [0, 100, BLOCK - 40, BLOCK - 26, BLOCK - 25, BLOCK - 10, BLOCK, 2 * BLOCK - 5])
def test_the_version_anywhere(before: int, tmp_path: Path) -> None:
    """The version is found whole at any place, also where two blocks that are read meet."""
    path = install(tmp_path / "qemu-x", random.Random(1).randbytes(before) + b"\0qemu-sh4 version 10.0.13 (Debian)\0")  # noqa: S311  no secret
    assert version_in(str(path)) == (10, 0, 13)


@pytest.mark.parametrize("content", [b"", b"qemu-arm version x", b"qemu-arm version 10", b"QEMU 7.2.9\n"])
def test_no_version(content: bytes, tmp_path: Path) -> None:
    """A file without QEMU's text has no version."""
    assert version_in(str(install(tmp_path / "qemu-arm", content))) == ()


def test_no_regular_file(tmp_path: Path) -> None:
    """A missing file, a directory and a FIFO have no version, and none of them is waited for."""
    os.mkfifo(tmp_path / "qemu-fifo")
    for path in (tmp_path / "qemu-fifo", tmp_path, tmp_path / "nothing", Path("/x\0y")):
        assert version_in(str(path)) == ()
    assert emulation(str(tmp_path / "qemu-fifo"), Flags.F) == Emulation(Emulator.QEMU, flags=Flags.F)


def test_kinds(tmp_path: Path) -> None:
    """An emulator is known by its own name or by that of the file to which its path leads."""
    for name, kind in (("FEXInterpreter", Emulator.FEX), ("box64", Emulator.BOX64), ("qemu-arm", Emulator.QEMU)):
        file = install(tmp_path / name, b"#!/bin/sh\n")
        link = tmp_path / f"linked-{name}"
        link.symlink_to(file)
        for path in (file, link):
            found = emulation(str(path), Flags.P)
            assert found == Emulation(kind, dynamic=True, flags=Flags.P)
    assert emulation("/usr/bin/true", Flags.F) is None


def test_a_fixed_address(tmp_path: Path) -> None:
    """A program of type ET_EXEC is linked to a fixed address, one of ET_DYN and a script are not."""
    program = tiny_program(CATALOG["x86_64"])
    for name, content, fixed in (
        ("qemu-exec", program, True),
        ("qemu-dyn", program[:16] + b"\x03" + program[17:], False),
        ("qemu-script", b"#!/bin/sh\n", False),
    ):
        found = emulation(str(install(tmp_path / name, content)), Flags.F)
        assert found is not None
        assert found.fixed_address == fixed


def test_a_version_that_is_known(tmp_path: Path) -> None:
    """A version that the emulator printed is not looked up again."""
    file = install(tmp_path / "qemu-arm", b"#!/bin/sh\necho qemu-arm version 7.2.9\n")
    found = emulation(str(file), Flags.F, (8, 0, 0))
    assert found is not None
    assert found.version == (8, 0, 0)


def test_this_host() -> None:
    """The facts are those that the kernel reports."""
    host = host_conditions()
    assert host.machine == os.uname().machine
    assert host.page_size == int(subprocess.run(["getconf", "PAGESIZE"], capture_output=True, check=True).stdout)
    assert host.randomized == (Path("/proc/sys/kernel/randomize_va_space").read_text(encoding="ascii") != "0\n")
