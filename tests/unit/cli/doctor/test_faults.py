"""Findings about known faults of emulators that no test can install here."""

import argparse
from pathlib import Path

import pytest
from support.programs import install

from binfmtd.catalog.architectures import CATALOG
from binfmtd.catalog.known_faults import KNOWN_FAULTS, HostConditions
from binfmtd.cli.doctor.faults import of_faults
from binfmtd.cli.doctor.snapshot import Snapshot
from binfmtd.daemon.interpreters.host_facts import HostFacts
from binfmtd.files import distribution
from binfmtd.formats.os_release import System
from binfmtd.model.entry import Entry, ObservedState
from binfmtd.model.finding import Finding, Level
from binfmtd.model.handler import Flags, Registration

LINKS = {fault.id: fault.link for fault in KNOWN_FAULTS}


def findings(
    path: str, host: HostConditions, version: tuple[int, ...] | None = None, name: str = "x86_64"
) -> list[Finding]:
    """Return the findings for one entry whose emulator prints this version."""
    entry = Entry("one", 1, enabled=True, registration=Registration(CATALOG[name].match, path, Flags.F))
    facts = HostFacts("/nonexistent", writes=False)
    nothing = (None, "", ObservedState((entry,)), "", None, None, "", None, None, "")
    snapshot = Snapshot(argparse.Namespace(), "", *nothing, facts)
    vars(snapshot).update(conditions=host, versions={path: version} if version else {})
    return list(of_faults(snapshot))


def test_large_pages(tmp_path: Path) -> None:
    """FEX on a kernel with large pages is a note with the reason."""
    fex = str(install(tmp_path / "FEXInterpreter", b"x"))
    (found,) = findings(fex, HostConditions("aarch64", (6, 18), page_size=16384))
    assert found.level is Level.NOTE
    assert found.text.startswith("a known fault of FEX for x86_64: FEX requires pages of 4 KiB")
    assert found.text.endswith(f"See {LINKS['fex-page-size']}")
    assert findings(fex, HostConditions("aarch64", (6, 18))) == []


def test_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package's emulator with a crash that another release does not have is a warning, and its command updates it."""
    monkeypatch.setattr(distribution, "this_system", lambda: System("fedora"))
    monkeypatch.setattr(distribution, "in_image", lambda: False)
    found, *others = findings("/usr/bin/qemu-x", HostConditions("x86_64", (6, 1), selinux=True), (9, 1, 9), "i386")
    assert (found.level, found.remedy) == (Level.WARNING, "dnf install qemu-user-static")
    assert found.text.endswith(
        f"See {LINKS['qemu-selinux-guest-base']} (a distribution may have added the fix to its own package); "
        "`binfmtd emulators pull IMAGE` adds other versions, for [emulators] version"
    )
    assert [other.level for other in others] == [Level.NOTE] * 3, "two hangs, and system calls"


def test_a_fault_without_a_fix() -> None:
    """A crash that no release is without is a note."""
    found, *_ = findings("/usr/bin/qemu-x", HostConditions("aarch64", (6, 18)), (11, 1, 3))
    assert (found.level, found.remedy) == (Level.NOTE, "")
    assert LINKS["qemu-go-x86-64"] in found.text
