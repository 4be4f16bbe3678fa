"""The list ``supported``, and the names of platforms."""

import pytest

from binfmtd.catalog.architectures import CATALOG
from binfmtd.catalog.levels import LEVELS
from binfmtd.catalog.program import tiny_program
from binfmtd.cli.compat.platforms import ORDER, architecture_of, go_name, native_architecture, supported, survey
from binfmtd.host.probe_process import Attempt

PROGRAMS = {tiny_program(row): name for name, row in CATALOG.items()} | {
    program: f"{name}/{level}" for name, levels in LEVELS.items() for level, program in levels.items()
}
EVERY = [f"{name}/{level}" for name, levels in LEVELS.items() for level in levels] + list(CATALOG)


def platforms(native: str | None, *running: str) -> list[str]:
    """Return the list on a host where exactly these programs run."""

    def probe(_: str, program: bytes) -> Attempt:
        runs = PROGRAMS[program] in running
        return Attempt("", runs, natively=False, in_chroot=True, reason="", duration=0)

    return [platform.removeprefix("linux/") for platform in supported(native, survey(native, probe))]


@pytest.mark.parametrize(
    ("native", "running", "expected"),
    [
        ("x86_64", "x86_64 i386", "amd64 386"),
        ("x86_64", "x86_64 x86_64/v2 x86_64/v3 i386 arm arm/v7 arm/v6", "amd64 amd64/v2 amd64/v3 386 arm/v7 arm/v6"),
        ("aarch64", "aarch64 x86_64 x86_64/v2", "arm64 amd64 amd64/v2"),
        ("aarch64", "aarch64 arm arm/v7 arm/v6", "arm64 arm/v7 arm/v6"),
        ("arm", "arm arm/v7 arm/v6 aarch64", "arm/v7 arm/v6 arm64"),
        ("arm", "arm arm/v6", "arm/v6"),
        ("arm", "arm", "arm/v5"),
        ("alpha", "alpha s390x", "alpha s390x"),  # no OCI platform of its own
        ("riscv64", "", "riscv64"),  # the native one always runs
        (None, "s390x", "s390x"),
    ],
)
def test_supported(native: str | None, running: str, expected: str) -> None:
    """The native platform comes first, with its levels, then those that run in the original's order; Arm by version."""
    assert platforms(native, *running.split()) == expected.split()


def test_the_whole_order() -> None:
    """All platforms come in the order of tonistiigi/binfmt, and none is listed that it does not list."""
    first = ["amd64", "amd64/v2", "amd64/v3", "amd64/v4", "arm64", "riscv64", "ppc64", "ppc64le", "s390x", "386"]
    assert platforms(None, *EVERY) == [*first, "mips64le", "mips64", "loong64", "arm/v7", "arm/v6"]


def test_no_levels_of_what_does_not_run() -> None:
    """A level is not listed if its architecture does not run."""
    assert platforms("s390x", "x86_64/v3", "arm/v7") == ["s390x"]


@pytest.mark.parametrize(
    ("token", "name"),
    [("linux/arm64/v8", "arm64"), ("x86_64", "amd64"), ("i386", "386"), ("armhf", "arm"), ("mips64el", "mips64le")],
)
def test_names_are_those_of_go(token: str, name: str) -> None:
    """The log has Go's name, whatever spelling was given, and QEMU's if Go has none."""
    row = architecture_of(token)
    assert row is not None
    assert go_name(row) == name
    assert go_name(CATALOG["hexagon"]) == "hexagon"
    assert architecture_of("nonsense") is None


@pytest.mark.parametrize("name", ORDER)
def test_native(name: str) -> None:
    """The native architecture is that of a program's head."""
    assert native_architecture(tiny_program(CATALOG[name])) == name
    assert native_architecture(b"#!/bin/sh") is None
