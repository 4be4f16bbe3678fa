"""The table of known faults: each row is complete, matching follows the conditions, and the document has all rows."""

import os
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator
from errno import ENOSYS
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.programs import install

from binfmtd.catalog.architectures import CATALOG
from binfmtd.catalog.known_faults import (
    KNOWN_FAULTS,
    Effect,
    Emulation,
    Emulator,
    HostConditions,
    KnownFault,
    Version,
    known_faults,
)
from binfmtd.catalog.program import tiny_program
from binfmtd.host.emulations import version_in
from binfmtd.host.facts import kernel_version
from binfmtd.model.handler import Flags

DOCUMENT = Path(__file__).parents[3] / "docs" / "known-faults.md"
REGION = re.compile(r"(<!-- faults -->\n).*(<!-- /faults -->\n)", re.DOTALL)
QEMU = [fault for fault in KNOWN_FAULTS if fault.emulator is Emulator.QEMU]
BY_ID = {fault.id: fault for fault in KNOWN_FAULTS}
# A host that meets every condition that is not about a value.
WORST = HostConditions("x86_64", (5, 10), page_size=65536, randomized=True, selinux=True)

versions = st.tuples(st.integers(4, 12), st.integers(0, 3), st.integers(0, 25))


def ids(version: Version, architecture: str = "aarch64", host: HostConditions = WORST, **rest: bool) -> list[str]:
    emulation = Emulation(Emulator.QEMU, version, **rest)  # type: ignore[arg-type]  # only fixed_address
    return [fault.id for fault in known_faults(emulation, architecture, host)]


@pytest.mark.parametrize("fault", KNOWN_FAULTS, ids=lambda fault: fault.id)
def test_each_row_is_complete(fault: KnownFault) -> None:
    """A row has sentences for the symptom and the remedy, a link, versions in order, and known architectures."""
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", fault.id)
    for text in (fault.symptom, fault.remedy):
        assert text[0].isupper() or text.split()[0] in {"box64", "tar", "chmod", "madvise(MADV_DONTNEED)", "systemd"}
        assert text.endswith(".")
        assert "  " not in text
        assert text.isascii()
    assert re.fullmatch(r"https://[^ ]+", fault.link)
    assert not fault.first or not fault.fixed or fault.first < fault.fixed
    for release in fault.backports:
        assert len(release) == 3, "a series has two numbers"
        assert fault.first < release < fault.fixed
    assert len({release[:2] for release in fault.backports}) == len(fault.backports)
    assert set(fault.targets) <= CATALOG.keys()
    assert re.compile(fault.pattern).groups <= 1
    assert bool(fault.system_call) == (fault.effect is Effect.ENOSYS)


def test_ids_are_unique() -> None:
    """No two rows have one id, and no two rows are about one system call."""
    assert len(BY_ID) == len(KNOWN_FAULTS)
    calls = [fault.system_call for fault in KNOWN_FAULTS if fault.system_call]
    assert len(set(calls)) == len(calls)


@given(version=versions, architecture=st.sampled_from(sorted(CATALOG)), fixed_address=st.booleans())
@example(version=(9, 2, 1), architecture="aarch64", fixed_address=False)
def test_a_fault_has_one_range(version: tuple[int, int, int], architecture: str, fixed_address: bool) -> None:
    """A release has a fault if it lies in its range, unless its series got the fix before."""
    found = ids(version, architecture, fixed_address=fixed_address)
    for fault in QEMU:
        wanted = (
            fault.first <= version
            and (not fault.fixed or version < fault.fixed)
            and not any(release[:2] == version[:2] and release <= version for release in fault.backports)
            and (not fault.targets or architecture in fault.targets)
            and fault.machines in {(), ("x86_64",)}
            and not fault.flags
            and (fixed_address or not fault.fixed_address)
        )
        assert (fault.id in found) == wanted


def test_an_unknown_version() -> None:
    """Of an emulator whose version is unknown, only faults are reported that do not depend on it."""
    assert ids(()) == []
    assert ids((), fixed_address=True) == ["qemu-fixed-address"]


@pytest.mark.parametrize(
    ("version", "has", "has_not"),
    [
        ((7, 0, 0), "qemu-go-madvise", "qemu-arm64-ldconfig"),
        ((7, 2, 18), "qemu-fork-fd-lock", "qemu-go-madvise"),
        ((7, 2, 19), "qemu-fork-clone-lock", "qemu-fork-fd-lock"),
        ((8, 0, 3), "qemu-upx", "qemu-arm64-brk"),
        ((8, 2, 2), "qemu-arm64-ldconfig", "qemu-upx"),
        ((9, 2, 1), "qemu-arm64-ldconfig", "qemu-no-openat2"),
        ((9, 2, 2), "qemu-arm64-brk", "qemu-arm64-ldconfig"),
        ((10, 0, 13), "qemu-arm64-brk", "qemu-no-mount-setattr"),
        ((10, 1, 0), "qemu-no-mount-setattr", "qemu-fork-fd-lock"),
        ((11, 1, 3), "qemu-arm64-brk", "qemu-fork-clone-lock"),
    ],
)
def test_releases(version: Version, has: str, has_not: str) -> None:
    """Releases that are in use have the faults that were reported for them."""
    found = ids(version)
    assert has in found
    assert has_not not in found


def test_conditions_of_the_host() -> None:
    """A fault that needs a kind of host is not reported on another one."""
    calm = HostConditions("x86_64", (6, 18))
    assert "qemu-arm64-brk" in ids((10, 0, 13), host=calm._replace(randomized=True))
    assert "qemu-arm64-brk" not in ids((10, 0, 13), host=calm)
    assert "qemu-arm64-brk" not in ids((10, 0, 13), host=calm._replace(randomized=True, machine="ppc64le"))
    assert "qemu-arm64-brk" not in ids((10, 0, 13), "s390x", calm._replace(randomized=True))
    assert "qemu-selinux-guest-base" in ids((9, 1, 0), "i386", calm._replace(selinux=True))
    assert "qemu-selinux-guest-base" not in ids((9, 1, 0), "i386", calm)
    fex = Emulation(Emulator.FEX)
    assert known_faults(fex, "x86_64", HostConditions("aarch64", (6, 18))) == []
    assert [fault.id for fault in known_faults(fex, "x86_64", HostConditions(page_size=16384))] == ["fex-page-size"]


def test_flags() -> None:
    """A fault of a flag is reported for entries that have it; a kernel whose version is unknown counts as new."""

    def found(emulator: Emulator, flags: str, kernel: tuple[int, int]) -> list[str]:
        emulation = Emulation(emulator, (10, 0, 13), dynamic=True, flags=Flags.parse(flags))
        host = HostConditions("x86_64", kernel)
        return [fault.id for fault in known_faults(emulation, "s390x", host) if fault.flags]

    assert found(Emulator.QEMU, "PF", (5, 11)) == ["kernel-p-unseen"]
    assert found(Emulator.QEMU, "F", (5, 11)) == found(Emulator.QEMU, "PF", (5, 12)) == []
    assert found(Emulator.QEMU, "PF", (0, 0)) == []
    assert found(Emulator.BOX64, "F", (6, 1)) == ["box64-flag-f"]
    assert found(Emulator.BOX64, "", (6, 1)) == []
    assert known_faults(Emulation(Emulator.BOX64, flags=Flags.F), "x86_64", WORST) == []


# The numbers of system calls that are the same on all architectures (since Linux 5.1), and mov xN, IMMEDIATE.
CALLS = {"openat2": 437, "faccessat2": 439, "mount_setattr": 442, "fchmodat2": 452}
MOV = 0xD2800000


def calls(number: int) -> bytes:
    """Return an arm64 program that makes a system call with zeros, and exits with the low byte of its result."""
    arguments = [MOV | register for register in range(6)]
    code = struct.pack("<7I", MOV | number << 5 | 8, *arguments) + bytes.fromhex("010000d4 a80b80d2 010000d4")
    return tiny_program(CATALOG["aarch64"]._replace(exit42=code))


def test_a_real_emulator_lacks_these_system_calls(tmp_path: Path) -> None:
    """The QEMU that is installed here lacks exactly the system calls that the table says of its version."""
    emulator = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    if emulator is None or kernel_version() < (6, 6):
        pytest.skip("takes qemu-aarch64, and Linux 6.6 or later, which has these system calls")
    missing = set()
    for name, number in CALLS.items():
        program = install(tmp_path / name, calls(number))
        if subprocess.run([emulator, program], check=False).returncode == -ENOSYS & 0xFF:
            missing.add(name)
    emulation = Emulation(Emulator.QEMU, version_in(emulator))
    wanted = [
        fault.system_call
        for fault in KNOWN_FAULTS
        if fault.system_call and fault in known_faults(emulation, (fault.targets or ("aarch64",))[0], WORST)
    ]
    assert missing == set(wanted)
    assert {fault.system_call for fault in KNOWN_FAULTS} - {""} == CALLS.keys()


def test_the_heap_under_a_real_emulator(tmp_path: Path) -> None:
    """Under the QEMU that is installed here, the heap of an arm64 PIE can grow unless the table says that it cannot."""
    emulator = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    if emulator is None or os.uname().machine != "x86_64":
        pytest.skip("takes qemu-aarch64 on x86_64")
    # mov x8, 214 (brk); mov x0, 0; svc 0; mov x1, 1 << 20; add x0, x0, x1; mov x20, x0; svc 0
    code = [0xD2801AC8, 0xD2800000, 0xD4000001, 0xD2A00201, 0x8B010000, 0xAA0003F4, 0xD4000001]
    # cmp x0, x20; cset x0, ne; mov x8, 93 (exit); svc 0
    code += [0xEB14001F, 0x9A9F07E0, 0xD2800BA8, 0xD4000001]
    text = struct.pack(f"<{len(code)}I", *code)
    program = bytearray(tiny_program(CATALOG["aarch64"]._replace(exit42=text)))
    program[16] = 3  # e_type: ET_DYN; its entry is the code at the end, and its segment begins at address 0
    struct.pack_into("<Q", program, 24, len(program) - len(text))
    struct.pack_into("<QQ", program, 64 + 16, 0, 0)
    path = install(tmp_path / "pie", bytes(program))
    status = subprocess.run([emulator, path], check=False).returncode
    assert status == ("qemu-arm64-brk" in ids(version_in(emulator)))


def number(version: Version) -> str:
    return ".".join(map(str, version))


def conditions(fault: KnownFault) -> Iterator[str]:
    """Yield in words what has to be met for a fault."""
    begin, end = number(fault.first), number(fault.fixed)
    either = fault.first or fault.fixed
    words = {
        f"from {begin} to before {end}": fault.first and fault.fixed,
        f"from {begin} on": fault.first and not fault.fixed,
        f"before {end}": fault.fixed and not fault.first,
        f"but not {', '.join(map(number, fault.backports))} and later ones of these series": either and fault.backports,
        "linked to a fixed address": fault.fixed_address,
        "not static": fault.dynamic,
        f"entries with flag {fault.flags.letters}": fault.flags,
        f"{'position-independent ' if fault.pie else ''}programs of {', '.join(fault.targets)}": fault.targets,
        f"on {', '.join(fault.machines)}": fault.machines,
        f"on Linux before {number(fault.kernel_before or ())}": fault.kernel_before,
        "with pages larger than 4 KiB": fault.large_pages,
        "while SELinux enforces its policy": fault.selinux,
        "unless kernel.randomize_va_space is 0": fault.randomized,
    }
    yield fault.emulator.value
    yield from (text for text, applies in words.items() if applies)


def rows() -> Iterator[str]:
    """Yield the document's paragraphs."""
    for fault in KNOWN_FAULTS:
        yield f"### {fault.id}"
        yield f"{'; '.join(conditions(fault))}. {fault.symptom}"
        yield f"{fault.remedy} [Source]({fault.link})"
        if fault.pattern:
            yield f"Printed: `{fault.pattern}`"


def test_the_document() -> None:
    """docs/known-faults.md has each row; BINFMTD_WRITE_REFERENCE=1 writes it anew."""
    wanted = "\n\n".join(rows())
    text = DOCUMENT.read_text(encoding="utf-8")
    new, replaced = REGION.subn(lambda found: f"{found[1]}\n{wanted}\n\n{found[2]}", text)
    assert replaced == 1
    if os.environ.get("BINFMTD_WRITE_REFERENCE"):
        DOCUMENT.write_text(new, encoding="utf-8")
    assert new == DOCUMENT.read_text(encoding="utf-8"), "run with BINFMTD_WRITE_REFERENCE=1 after a change of the table"
