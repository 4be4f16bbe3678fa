"""``binfmtd explain`` and ``binfmtd probe`` name the known faults of an emulator."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.cli import Cli
from support.elf_files import made
from support.instance import Instance
from support.programs import foreign_program, install

from binfmtd.catalog.architectures import CATALOG
from binfmtd.catalog.known_faults import KNOWN_FAULTS
from binfmtd.catalog.program import tiny_program

LINKS = {fault.id: fault.link for fault in KNOWN_FAULTS}
RAN = "ran"  # a file that a fake emulator leaves, if it is run
Register = Callable[..., Path]


@pytest.fixture
def register(instance: Instance, tmp_path: Path) -> Register:
    """Return a function that registers a fake emulator of some version, and ends as the script says."""

    def register(architecture: str, version: str, script: str = "", flags: str = "") -> Path:
        text = f"#!/bin/sh\ntouch {tmp_path}/{RAN}\n{script}\n# qemu-fake version {version} (a test)\n"
        emulator = install(tmp_path / f"qemu-{architecture}", text.encode())
        instance.add(f"my-{architecture}", CATALOG[architecture].match, emulator, flags)
        return emulator

    return register


def notes(cli: Cli, *arguments: str | Path) -> list[str]:
    (found,) = cli("explain", "--json", *map(str, arguments)).json
    return [note for note in found["notes"] if any(link in note for link in LINKS.values())]


def named(found: list[str]) -> set[str]:
    return {name for name, link in LINKS.items() if any(link in note for note in found)}


# explain


def test_explain(cli: Cli, register: Register, tmp_path: Path) -> None:
    """The faults of the emulator that takes a file are notes, one for all missing system calls; nothing is run."""
    program = foreign_program(tmp_path / "program", CATALOG["aarch64"])
    assert notes(cli, program) == []
    register("aarch64", "8.2.2")
    found = notes(cli, program)
    assert named(found) >= {"qemu-arm64-ldconfig", "qemu-fork-fd-lock", "qemu-no-openat2", "qemu-no-fchmodat2"}
    assert len([note for note in found if note.startswith("QEMU 8.2.2: programs that need openat2, ")]) == 1
    assert all("QEMU 8.2.2: " in note for note in found)
    assert not (tmp_path / RAN).exists()
    shown = cli("explain", str(program)).stdout
    assert LINKS["qemu-arm64-ldconfig"] in shown


def test_explain_programs_that_differ(cli: Cli, register: Register, tmp_path: Path) -> None:
    """A fault of position-independent programs is no note on another one, nor on those of other architectures."""
    register("aarch64", "11.1.3")
    register("s390x", "11.1.3")
    fixed = foreign_program(tmp_path / "fixed", CATALOG["aarch64"])
    other = foreign_program(tmp_path / "other", CATALOG["s390x"])
    pie = install(tmp_path / "pie", made((1, b"code")))
    assert notes(cli, fixed) == notes(cli, other) == []
    if os.uname().machine == "x86_64" and Path("/proc/sys/kernel/randomize_va_space").read_text("ascii") != "0\n":
        assert named(notes(cli, pie)) == {"qemu-arm64-brk"}


def test_explain_in_a_tree(cli: Cli, register: Register, tmp_path: Path) -> None:
    """Without F the emulator of a root tree counts, with F the one that the kernel opened."""
    emulator = register("s390x", "9.1.0")
    tree = tmp_path / "tree"
    (tree / emulator.parent.relative_to("/")).mkdir(parents=True)
    foreign_program(tree / "program", CATALOG["s390x"])
    install(tree / emulator.relative_to("/"), b"#!/bin/sh\n# qemu-s390x version 99.0.0 (a test)\n")
    (tree / "bin").mkdir()
    install(tree / "bin" / "sh", Path("/bin/sh").read_bytes())
    assert notes(cli, "--root", tree, "/program") == []
    cli.instance.write("my-s390x", b"-1")
    register("s390x", "9.1.0", flags="F")
    assert "qemu-no-openat2" in named(notes(cli, "--root", tree, "/program"))


def test_explain_p(cli: Cli, register: Register, tmp_path: Path) -> None:
    """Flag P under a QEMU that cannot see it is a note."""
    program = foreign_program(tmp_path / "program", CATALOG["s390x"])
    emulator = register("s390x", "5.2.0", flags="P")
    assert "qemu-p-unseen" in named(notes(cli, program))
    by_name = tmp_path / "s390x-binfmt-P"  # Debian's own QEMU knows by this name that there is P
    by_name.symlink_to(emulator)
    cli.instance.add("by-name", CATALOG["s390x"].match, by_name, "P")
    assert "qemu-no-openat2" in (found := named(notes(cli, program)))
    assert "qemu-p-unseen" not in found


# probe


def probe(cli: Cli, architecture: str) -> dict[str, Any]:
    (row,) = cli("probe", "--json", architecture).json["architectures"]
    return dict(row)


def test_probe_of_a_crash(cli: Cli, register: Register) -> None:
    """A crash of an emulator comes with the faults that can be its reason; those of special programs are left out."""
    register("aarch64", "8.2.2", "kill -SEGV $$")
    row = probe(cli, "aarch64")
    assert not row["runs"]
    assert row["reason"].startswith("it was killed by signal 11, Segmentation fault; a known fault of QEMU 8.2.2: ")
    assert named([row["reason"]]) == {"qemu-arm64-ldconfig"}


def test_probe_of_what_is_not_known(cli: Cli, register: Register) -> None:
    """No fault is named for an emulator without one, nor for one that ends by itself."""
    register("s390x", "12.0.0", "kill -SEGV $$")
    assert probe(cli, "s390x")["reason"] == "it was killed by signal 11, Segmentation fault"
    register("aarch64", "8.2.2", "exit 3")
    assert probe(cli, "aarch64")["reason"] == "its exit status is 3, should be 42"


def test_probe_of_a_fixed_address(cli: Cli, instance: Instance, tmp_path: Path) -> None:
    """An emulator that is linked to a fixed address and crashes is named with that fault."""
    if os.uname().machine != "x86_64":
        pytest.skip("the fault is known of x86_64 only")
    native = CATALOG["x86_64"]
    crashes = tiny_program(native).removesuffix(native.exit42) + b"\x0f\x0b"  # ud2
    emulator = install(tmp_path / "qemu-s390x", crashes.ljust(len(tiny_program(native)), b"\0"))
    instance.add("my-s390x", CATALOG["s390x"].match, emulator)
    reason = probe(cli, "s390x")["reason"]
    assert reason.startswith("it was killed by signal 4, Illegal instruction; a known fault of QEMU: ")
    assert named([reason]) == {"qemu-fixed-address"}
