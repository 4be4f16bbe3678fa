"""`doctor` reports the known faults of the emulators that entries use."""

import os
from pathlib import Path

import pytest
from support.doctor import Doctor, Finding, match_of
from support.programs import NATIVE, install

from binfmtd.catalog.architectures import CATALOG
from binfmtd.catalog.known_faults import KNOWN_FAULTS

CONFIG = "architectures = []"
LINKS = {fault.id: fault.link for fault in KNOWN_FAULTS}


def fake(tmp_path: Path, name: str, version: str) -> Path:
    """Install a script that prints QEMU's version."""
    return install(tmp_path / name, f"#!/bin/sh\necho qemu-fake version {version}\n".encode())


def found(doctor: Doctor, check: str) -> list[Finding]:
    return [finding for finding in doctor.look(config=CONFIG) if finding["check"] == check]


def test_one_finding_a_fault(doctor: Doctor, tmp_path: Path) -> None:
    """A fault of ten architectures' emulator is one finding; the versions and some architectures are named."""
    old = fake(tmp_path, "qemu-old", "7.2.9")
    older = fake(tmp_path, "qemu-older", "7.2.3")
    for name in [name for name in CATALOG if name not in (*NATIVE, "sh4")][:10]:
        doctor.instance.add(f"my-{name}", match_of(name), old)
    doctor.instance.add("my-sh4", match_of("sh4"), older)
    faults = found(doctor, "known_fault")
    (hang,) = [fault for fault in faults if LINKS["qemu-fork-fd-lock"] in fault["text"]]
    assert hang["text"].startswith("a known fault of QEMU 7.2.3 and 7.2.9 for ")
    assert " and 8 more: " in hang["text"]
    assert "10.1" in hang["text"]
    assert hang["level"] == "note", "a hang is a note, a crash is a warning"
    assert len({fault["text"] for fault in faults}) == len(faults)
    assert not [fault for fault in faults if LINKS["qemu-arm64-ldconfig"] in fault["text"]]


def test_missing_system_calls(doctor: Doctor, tmp_path: Path) -> None:
    """Missing system calls are one note for each version, which names the calls and their sources."""
    for name, version in (("arm", "9.1.0"), ("sh4", "9.1.0"), ("hppa", "9.2.4")):
        doctor.instance.add(f"my-{name}", match_of(name), fake(tmp_path, f"qemu-{name}", version))
    first, second = sorted(found(doctor, "missing_system_calls"), key=lambda finding: str(finding["text"]))
    assert first["level"] == second["level"] == "note"
    assert first["text"].startswith("QEMU 9.1.0: programs that need openat2, fchmodat2 and mount_setattr get ")
    assert LINKS["qemu-no-openat2"] in first["text"]
    assert second["text"].startswith("QEMU 9.2.4: programs that need fchmodat2 and mount_setattr get ENOSYS")


def test_arm64(doctor: Doctor, tmp_path: Path) -> None:
    """The crash of ldconfig is a warning for an enabled entry of aarch64 only, and it ends with a newer QEMU."""

    def levels() -> list[str]:
        return [
            fault["level"] for fault in found(doctor, "known_fault") if LINKS["qemu-arm64-ldconfig"] in fault["text"]
        ]

    emulator = fake(tmp_path, "qemu-any", "8.2.2")
    doctor.instance.add("other", match_of("riscv64"), emulator)
    assert levels() == []
    doctor.instance.add("mine", match_of("aarch64"), emulator)
    assert levels() == ["warning"]
    doctor.instance.write("mine", b"0")
    assert levels() == []
    doctor.instance.write("mine", b"1")
    fake(tmp_path, "qemu-any", "9.2.2")
    assert levels() == []


def test_a_new_emulator(doctor: Doctor, tmp_path: Path) -> None:
    """An emulator without known faults, and an interpreter that is no emulator, add nothing."""
    doctor.instance.add("new", match_of("s390x"), fake(tmp_path, "qemu-s390x", "12.0.0"))
    other = install(tmp_path / "other", b"#!/bin/sh\necho qemu-x version 7.2.9\n")
    doctor.instance.add("other", match_of("m68k"), other)
    assert found(doctor, "known_fault") == found(doctor, "missing_system_calls") == []


def test_a_fault_that_entries_show(doctor: Doctor, tmp_path: Path) -> None:
    """Flag P under QEMU 5.2 is the finding on the entry alone, and not reported a second time."""
    doctor.instance.add("p", match_of("s390x"), fake(tmp_path, "qemu-s390x", "5.2.0"), "PF")
    assert len(found(doctor, "p_unseen")) == 1
    assert not [fault for fault in found(doctor, "known_fault") if LINKS["qemu-p-unseen"] in fault["text"]]


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user cannot own what others may not change")
def test_an_untrusted_emulator(doctor: Doctor, tmp_path: Path) -> None:
    """The version of an emulator that is not run, since other users could change it, is the one in its file."""
    emulator = fake(tmp_path, "qemu-arm", "9.1.0")
    doctor.instance.add("my-arm", match_of("arm"), emulator)
    emulator.chmod(0o777)
    assert [finding["text"].partition(":")[0] for finding in found(doctor, "missing_system_calls")] == ["QEMU 9.1.0"]
