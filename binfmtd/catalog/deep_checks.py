"""The checks of ``binfmtd probe --deep``, and the programs that make them.

A tiny program that exits with 42 shows that an emulator starts.  What breaks in emulators comes later: threads,
signals, memory at low addresses, code that is made at run time, new system calls.  For each platform of Docker there
are two programs (host/deep_programs): a static PIE, and one that is linked to the address 0x10000.
Each run makes the one check that its last argument names.

For example, the program ``aarch64-pie`` with the argument ``openat2`` exits with 42 under QEMU 10.0.  Under QEMU 7.2 it
writes ``openat2``, a tab and ``026`` (ENOSYS in hexadecimal), and exits with 1.
"""

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from binfmtd.catalog.architectures import CATALOG
from binfmtd.catalog.known_faults import KNOWN_FAULTS, Effect, KnownFault
from binfmtd.catalog.names import find
from binfmtd.errors import FormatError

PIE, FIXED = "pie", "fixed"
DYNAMIC = "dynamic"
"""The check of a dynamic program in a root tree, whose program is the tree's own."""

_LINE = re.compile(r"([^\t\n]{1,100})\t([0-9a-f]{3})$", re.MULTILINE)


class DeepProgram(NamedTuple):
    """The programs of one platform: ``file`` is how their names begin, ``architecture`` the catalog's name."""

    platform: str
    architecture: str
    file: str


class Check(NamedTuple):
    """One check.

    ``system_call`` is the one that it is about, which Linux has from the version ``since`` on.  ``faults`` are the ids
    of the known faults of emulators by which it fails without a crash.  A check whose result depends on random
    addresses fails if each of so many ``tries`` fails.
    """

    name: str
    build: str = PIE
    system_call: str = ""
    since: tuple[int, int] = (0, 0)
    faults: tuple[str, ...] = ()
    tries: int = 1


class Outcome(StrEnum):
    """The outcome of one check."""

    OK = "ok"
    FAILS = "fails"
    MISSING = "missing"  # the emulator lacks a system call, and programs are known that fail without it
    UNNEEDED = "unneeded"  # the emulator lacks a system call, and no such program is known
    UNTESTED = "untested"  # this host cannot make the check, or was not asked to

    @property
    def is_failure(self) -> bool:
        """True if programs fail for this reason."""
        return self in (Outcome.FAILS, Outcome.MISSING)


class CheckResult(NamedTuple):
    """The result of one check; ``reason`` is empty if it passes, ``duration_us`` is in microseconds, 0 if not made."""

    check: str
    outcome: Outcome
    reason: str = ""
    duration_us: int = 0


class Step(NamedTuple):
    """The step at which a check failed, and the number of the error; 0 if no system call failed."""

    text: str
    errno: int


DEEP_PROGRAMS = (
    DeepProgram("linux/amd64", "x86_64", "x86_64"),
    DeepProgram("linux/arm64", "aarch64", "aarch64"),
    DeepProgram("linux/arm/v7", "arm", "armv7"),
    DeepProgram("linux/arm/v6", "arm", "armv6"),
    DeepProgram("linux/386", "i386", "i386"),
    DeepProgram("linux/ppc64le", "ppc64le", "ppc64le"),
    DeepProgram("linux/riscv64", "riscv64", "riscv64"),
    DeepProgram("linux/s390x", "s390x", "s390x"),
)
"""The platforms for which Docker's official images are built."""

CHECKS = (
    Check("start", faults=("qemu-p-unseen", "kernel-p-unseen")),
    Check(FIXED, FIXED, faults=("qemu-selinux-guest-base",)),
    Check("memory"),
    # Of 6,000 single tries under QEMU 10.0, 20 failed for riscv64 and 32 for amd64.
    Check("heap", faults=("qemu-arm64-brk",), tries=3),
    Check("code"),
    Check("floats"),
    Check("clock"),
    Check("signals"),
    Check("interrupts"),
    Check("threads"),
    Check("processes"),
    # include/uapi/asm-generic/unistd.h; the versions are those in the manual pages of the calls.
    Check("statx", system_call="statx", since=(4, 11)),
    Check("clone3", system_call="clone3", since=(5, 3)),
    Check("openat2", system_call="openat2", since=(5, 6)),
    Check("faccessat2", system_call="faccessat2", since=(5, 8)),
    Check("close_range", system_call="close_range", since=(5, 9)),
    Check("mount_setattr", system_call="mount_setattr", since=(5, 12)),
    Check("fchmodat2", system_call="fchmodat2", since=(6, 6)),
)
"""All checks that our own programs make, in the order in which they are made."""

CHECK_NAMES = (*(check.name for check in CHECKS), DYNAMIC)


def deep_programs(names: Iterable[str]) -> tuple[DeepProgram, ...]:
    """Return the programs of these architectures, each once and in the order of DEEP_PROGRAMS; of all for no name.

    A name with a variant (``arm/v6``) selects the program of this variant, if it has one of its own.
    Raises FormatError for an unknown architecture, and for one that has no programs.
    """
    selected: set[DeepProgram] = set()
    for name in names:
        architecture = find(name).name
        programs = [program for program in DEEP_PROGRAMS if program.architecture == architecture]
        if not programs:
            known = ", ".join(dict.fromkeys(program.architecture for program in DEEP_PROGRAMS))
            raise FormatError(f"--deep has no programs for {architecture}: name one of {known}, or leave --deep out")
        wanted = _variant(name)
        selected.update([program for program in programs if _variant(program.platform) == wanted] or programs)
    return tuple(program for program in DEEP_PROGRAMS if not selected or program in selected)


def _variant(name: str) -> str:
    """Return the variant in a name or platform, without the letter v: ``7`` of ``linux/arm/v7``; "" if none."""
    return name.strip().lower().removeprefix("linux/").partition("/")[2].removeprefix("v").partition(".")[0]


def program_of(bits: int, byte_order: str, machine: int) -> DeepProgram | None:
    """Return the programs for files with these fields in their ELF header; None if there are none."""
    for program in DEEP_PROGRAMS:
        header = CATALOG[program.architecture].header
        if (header.bits, header.byte_order, header.e_machine) == (bits, byte_order, machine):
            return program
    return None


def failed_step(output: str) -> Step | None:
    """Return the step that a program's output names; None if it names none."""
    found = _LINE.search(output)
    return Step(found[1], int(found[2], 16)) if found else None


def fault_of_call(system_call: str, architecture: str) -> KnownFault | None:
    """Return the known fault that an emulator has if it lacks a system call.

    Returns None if no program of this architecture is known to fail without that call.
    """
    for fault in KNOWN_FAULTS:
        if fault.system_call == system_call and architecture in (fault.targets or (architecture,)):
            return fault
    return None


def can_cause(fault: KnownFault, check: Check, *, crashed: bool) -> bool:
    """Return True if a known fault of the emulator can be why this check fails, or why its program crashed."""
    if fault.id in check.faults:
        return True
    return crashed and fault.effect is Effect.CRASH and not fault.special and (check.build == PIE or not fault.pie)
