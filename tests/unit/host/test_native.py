"""The architectures that certainly run on this machine, if none can be tried."""

import os
from types import SimpleNamespace

import pytest

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
