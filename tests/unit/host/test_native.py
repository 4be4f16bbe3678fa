"""The architectures that certainly run on this machine, if none can be tried."""

import os
from types import SimpleNamespace

import pytest

from binfmtd.catalog.architectures import CATALOG
from binfmtd.catalog.program import tiny_program
from binfmtd.host import native

MACHINES = {"x86_64", "aarch64"}


def test_an_emulator_does_not_hide_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """If uname(2) names a machine whose programs the kernel does not run for us, an emulator has replaced it."""
    here = os.uname().machine
    if here not in MACHINES:
        pytest.skip(f"no other machine is known for {here}")
    (emulated,) = MACHINES - {here}
    expected = native.certainly_native()
    assert here in expected
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=emulated))
    assert native.certainly_native() == expected


@pytest.mark.parametrize(
    ("runs", "tried"),
    [
        ({"aarch64"}, {"aarch64", "aarch64_be", "arm", "armeb"}),
        ({"arm", "armeb"}, {"aarch64", "aarch64_be", "alpha", "arm", "armeb"}),
        ({"x86_64", "i386"}, None),
        ({"ppc64", "ppc"}, None),
        ({"mips", "mipsn32", "mips64"}, None),
        ({"sparc64", "sparc32plus", "sparc"}, None),
        (set(), set(CATALOG)),
    ],
)
def test_only_related_machines_are_tried(runs: set[str], tried: set[str] | None) -> None:
    """All that runs is found, and once a program has run, programs of other kernels are not tried."""
    names = {tiny_program(architecture): name for name, architecture in CATALOG.items()}
    ran = []

    def run(program: bytes) -> bool:
        ran.append(names[program])
        return names[program] in runs

    assert native.try_all(CATALOG.values(), run) == {name: name in runs for name in CATALOG}
    assert len(ran) == len(set(ran))
    assert tried is None or set(ran) == tried
