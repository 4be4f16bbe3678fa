"""Report the known faults of the emulators that entries use (binfmtd/catalog/known_faults.py).

* One fault is one finding, however many emulators and architectures have it.
* It is a warning if programs crash and emulators without the fault exist.  Otherwise it is a note.
* Missing system calls are one note for each version.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from binfmtd.catalog.known_faults import Effect, Emulation, KnownFault, known_faults
from binfmtd.cli.doctor.remedies import architecture_of, split
from binfmtd.cli.doctor.snapshot import Snapshot
from binfmtd.cli.fault_texts import about, listed, missing_calls, number
from binfmtd.files.distribution import other_emulators
from binfmtd.model.finding import Finding, Level, Section
from binfmtd.model.stand_in import is_stand_in

_MOST = 3  # architectures or versions that a text names
_WARNED_OF = (Effect.CRASH, Effect.REFUSAL)
_STORE = "; `binfmtd emulators pull IMAGE` adds other versions, for [emulators] version"
_PATCHED = " (a distribution may have added the fix to its own package)"


class _Use(NamedTuple):
    architecture: str
    path: str
    emulation: Emulation


def of_faults(snapshot: Snapshot) -> Iterator[Finding]:
    """Yield a finding for each known fault of an emulator that an entry uses."""
    users: defaultdict[KnownFault, list[_Use]] = defaultdict(list)
    missing: defaultdict[tuple[int, ...], dict[str, KnownFault]] = defaultdict(dict)
    for use in _uses(snapshot):
        for fault in known_faults(use.emulation, use.architecture, snapshot.conditions):
            if fault.system_call:
                missing[use.emulation.version][fault.system_call] = fault
            elif not fault.checked_by:
                users[fault].append(use)
    for fault, uses in users.items():
        yield _of_one(fault, uses)
    for version, faults in missing.items():
        yield _of_missing(version, faults.values())


def _uses(snapshot: Snapshot) -> Iterator[_Use]:
    """Yield each emulator that an enabled entry uses, once for each architecture."""
    seen = set()
    for entry in snapshot.observed.entries if snapshot.observed else ():
        registration = entry.registration
        if registration is None or not entry.enabled or is_stand_in(entry.name):
            continue
        architecture, path = architecture_of(registration.match), registration.interpreter
        emulation = snapshot.emulation(registration) if architecture else None
        if architecture and emulation and (architecture, path) not in seen:
            seen.add((architecture, path))
            yield _Use(architecture, path, emulation)


def _of_one(fault: KnownFault, uses: list[_Use]) -> Finding:
    architectures = sorted({use.architecture for use in uses})
    text = f"a known fault of {_versions(uses)} for {listed(architectures, _MOST)}: {about(fault)}"
    if fault.effect not in _WARNED_OF or not (fault.fixed or fault.fixed_address):
        return Finding(Section.EMULATORS, "known_fault", Level.NOTE, text)
    text += (_PATCHED if fault.fixed else "") + _STORE
    how = other_emulators(architectures[0], (use.path for use in uses))
    return Finding(Section.EMULATORS, "known_fault", Level.WARNING, *split(f"{text}: {how}"))


def _of_missing(version: tuple[int, ...], faults: Iterable[KnownFault]) -> Finding:
    text = f"QEMU {number(version)}: {missing_calls(faults)}"
    return Finding(Section.EMULATORS, "missing_system_calls", Level.NOTE, text)


def _versions(uses: list[_Use]) -> str:
    emulator = uses[0].emulation.emulator
    versions = sorted({use.emulation.version for use in uses if use.emulation.version})
    return f"{emulator} {listed([number(version) for version in versions], _MOST)}" if versions else str(emulator)
