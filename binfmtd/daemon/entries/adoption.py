"""Two daemons of binfmtd on one instance: which entries of the other this one regards as its own.

Two daemons with the same config would replace each other's entries for ever.  So each adopts an entry that is identical
to its own.  With different configs, neither touches a stand-in that only the other one keeps.  The same goes for a
command beside a daemon, such as `docker run ... binfmt --install arm64` beside the daemon of the host.

Example: a daemon on the host and one in a container both keep ``qemu-arm`` with flag F.  Both replace the entry once,
since neither knows which file the other's entry has opened, and then adopt it.  If the emulator was upgraded meanwhile,
the other's entry may have opened the old file: then it is not adopted, but replaced once more.
"""

import time
from math import inf

from binfmtd.daemon.entries.entry_state import Expected, StateTable
from binfmtd.daemon.state_files.ledger import Ledger
from binfmtd.model.desired import DesiredState, FileIdentity
from binfmtd.model.drift import Record
from binfmtd.model.entry import Entry, ObservedState
from binfmtd.model.handler import Flags, Handler
from binfmtd.model.ownership import equal, registered_by_us
from binfmtd.model.stand_in import is_stand_in, stand_in_name

_INSISTING = 10.0  # seconds after our replacing an entry in which one that equals ours is adopted


class Adoption:
    """The entries that are adopted, and the stand-ins that are another daemon's."""

    def __init__(self, states: StateTable, ledger: Ledger) -> None:
        self._states = states
        self._ledger = ledger
        self._has_looked = False  # so the stand-ins that an earlier daemon left are known (EntryState.ours)

    def leave_stand_ins(self) -> None:
        """Regard all present stand-ins as another daemon's, except those of handlers that are declared here, too."""
        self._has_looked = True

    def adopt(self, observed: ObservedState, desired: DesiredState) -> frozenset[str]:
        """Adopt what is identical to ours, and return the stand-ins of another daemon."""
        if self._has_looked:
            self._adopt_stand_ins(observed, desired)
        others = self._others_stand_ins(observed, desired)
        self._adopt_entries(observed, desired)
        return others

    def _others_stand_ins(self, observed: ObservedState, desired: DesiredState) -> frozenset[str]:
        """Return the stand-ins of handlers that were never declared here, and that no earlier daemon of ours has left.

        A daemon in another container keeps them, and cannot be seen from here.  Or it has ended, and left them with the
        proper entries of the same names, which are foreign, too.
        """
        stand_ins = [entry for entry in observed.relevant if is_stand_in(entry.name)]
        names = set(desired.by_name)
        if not self._has_looked:
            self._has_looked = True
            names |= self._ledger.earlier_intents
            for entry in stand_ins:
                if registered_by_us(entry, self._ledger.records.get(entry.name)):
                    self._states[entry.name].ours = True
                elif self._is_new(entry) and entry.registration and Flags.F in entry.registration.flags:
                    self._states[entry.name].unrecorded = entry.inode
        ours = {stand_in_name(name) for name in names}
        ours |= {stand_in_name(name) for name in ours}  # helpers, which serve while a stand-in is replaced
        for name in ours:
            self._states[name].ours = True
        return frozenset(entry.name for entry in stand_ins if not self._states[entry.name].ours)

    def replaced(self, handler: Handler, opened_file: FileIdentity | None) -> None:
        """Expect that another daemon replaces our entry, as we did its own: an F entry whose file is not known.

        ``opened_file`` is the one that F has opened for ours.
        """
        until = time.monotonic() + _INSISTING
        self._states[handler.name].expected = Expected(handler.registration, until, opened_file)

    def given_up(self, handler: Handler, judged_file: FileIdentity | None) -> None:
        """Expect that the kernel completes a registration that we have given up.

        It is adopted if ``judged_file``, which the guard saw before, is still at the interpreter's path then.  It is
        ours even if the config no longer declares it then.
        """
        self._states[handler.name].expected = Expected(handler.registration, inf, judged_file)
        self._ledger.records[handler.name] = Record(handler.registration, None, judged_file)

    def awaits(self, name: str) -> bool:
        """Return True if the kernel may complete a registration of this name that we have given up."""
        expected = self._states[name].expected
        return expected is not None and expected.until == inf

    def _adopt_entries(self, observed: ObservedState, desired: DesiredState) -> None:
        """Adopt the expected entries that the config still wants as they are."""
        now = time.monotonic()
        for name, state in self._states.items():
            expected, entry, handler = state.expected, observed.by_name.get(name), desired.by_name.get(name)
            if expected is None:
                continue
            if now > expected.until or (expected.until == inf and entry is not None):
                state.expected = None
            if now > expected.until or entry is None or handler is None or not handler.enabled:
                continue
            wanted = equal(expected.registration, handler.registration)
            if wanted and equal(entry.registration, handler.registration) and self._is_new(entry):
                self._record(entry, handler, desired, expected.opened_file)

    def _adopt_stand_ins(self, observed: ObservedState, desired: DesiredState) -> None:
        """Adopt identical stand-ins that another daemon with the same config has registered since the last look."""
        for stand_in in desired.permanent.values():
            entry = observed.by_name.get(stand_in.name)
            if entry is None or entry.inode == self._states[entry.name].unrecorded:
                continue
            if equal(entry.registration, stand_in.registration) and self._is_new(entry):
                path = stand_in.registration.interpreter
                record = self._ledger.records.get(entry.name)
                before = record.opened_file if record else desired.file_identities.get(path)
                self._record(entry, stand_in, desired, before)

    def _is_new(self, entry: Entry) -> bool:
        record = self._ledger.records.get(entry.name)
        return record is None or record.inode != entry.inode

    def _record(self, entry: Entry, handler: Handler, desired: DesiredState, before: FileIdentity | None) -> None:
        """Record an entry as ours.  F has opened the file at the path if that has not changed since ``before``."""
        there = desired.file_identities.get(handler.registration.interpreter)
        opened_file = there if there == before else None  # an entry whose file is not certain counts as stale
        self._ledger.records[entry.name] = Record(handler.registration, entry.inode, opened_file)
