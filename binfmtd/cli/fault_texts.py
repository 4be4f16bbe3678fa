"""Sentences about known faults of emulators, which `doctor`, `explain` and `probe` print."""

from collections.abc import Iterable, Sequence

from binfmtd.catalog.known_faults import Emulation, KnownFault, Version


def named(emulation: Emulation) -> str:
    """Return the emulator's name, with its version if that is known: ``QEMU 8.2.2``."""
    return f"{emulation.emulator} {number(emulation.version)}" if emulation.version else str(emulation.emulator)


def about(fault: KnownFault) -> str:
    """Return the symptom, the remedy and the link."""
    return f"{fault.symptom} {fault.remedy} See {fault.link}"


def missing_calls(faults: Iterable[KnownFault]) -> str:
    """Return which system calls an emulator lacks, and each with its symptom, its remedy and its link."""
    missing = list(faults)
    calls = listed([fault.system_call for fault in missing])
    each = "; ".join(f"{fault.system_call}: {about(fault)}" for fault in missing)
    return f"programs that need {calls} get ENOSYS. {each}"


def number(version: Version) -> str:
    """Return a version as it is written: ``8.2.2``."""
    return ".".join(map(str, version))


def listed(names: Sequence[str], most: int | None = None) -> str:
    """Return ``a, b and c``; of more than ``most`` + 1 names only ``most``, and the number of the others."""
    if most is not None and len(names) > most + 1:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
