"""Notes on the known faults of the emulator that would run a file (binfmtd/catalog/known_faults.py).

Nothing is run: the emulator's version is looked up in its file, once for each emulator.
"""

from functools import cached_property

from binfmtd.catalog.known_faults import Emulation, HostConditions, known_faults
from binfmtd.cli.fault_texts import about, missing_calls, named
from binfmtd.host.emulations import emulation, host_conditions
from binfmtd.model.handler import Flags


class FaultNotes:
    """The notes for the files of one run of `explain`."""

    def __init__(self) -> None:
        self._emulations: dict[tuple[str, Flags], Emulation | None] = {}

    @cached_property
    def _host(self) -> HostConditions:
        return host_conditions()

    def of(self, emulator: str, flags: Flags, architecture: str, *, pie: bool) -> list[str]:
        """Return a note for each fault, and one for all missing system calls.

        ``emulator`` is the path of its file, ``flags`` are the entry's, and ``architecture`` is the program's.
        """
        key = (emulator, flags)
        if key not in self._emulations:
            self._emulations[key] = emulation(emulator, flags)
        if (found := self._emulations[key]) is None:
            return []
        faults = [fault for fault in known_faults(found, architecture, self._host) if pie or not fault.pie]
        calls = [fault for fault in faults if fault.system_call]
        notes = [f"a known fault of {named(found)}: {about(fault)}" for fault in faults if not fault.system_call]
        return [*notes, f"{named(found)}: {missing_calls(calls)}"] if calls else notes
