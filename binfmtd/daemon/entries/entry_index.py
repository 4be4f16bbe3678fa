r"""Leaves bystanders out of a plan: an instance may hold thousands of entries that concern no handler.

A bystander is a foreign entry that shares no file with a handler, takes no program of this host, and that the config
neither removes nor restores.  The plan is the same with it and without it.  For example, with the eight handlers of
Docker an entry for `.jar` files is a bystander, and one for `\x7fELF` is not.

The verdict depends on the entry and on the desired state.  So it is kept until one of the two changes, and a look at
10,000 entries that no program has touched costs little more than listing them.
"""

from collections.abc import Mapping, Sequence

from binfmtd.kernel.steps import Steps
from binfmtd.model.config import Unmanaged
from binfmtd.model.desired import DesiredState
from binfmtd.model.drift import Record
from binfmtd.model.entry import Entry, ObservedState
from binfmtd.model.guard import programs_taken
from binfmtd.model.restore import to_be_remembered
from binfmtd.model.stand_in import is_stand_in

_A_SLICE = 50  # entries


class EntryIndex:
    """The bystanders that are known under one desired state."""

    def __init__(self, heads: Sequence[bytes]) -> None:
        """``heads``: the first 256 bytes of some programs of this host, each."""
        self._heads = tuple(heads)
        self._desired: DesiredState | None = None
        self._bystanders: dict[str, Entry] = {}
        self._last = ObservedState(), ObservedState()  # before and after bystanders were left out
        self._recorded: frozenset[str] = frozenset()  # names in the ledger then

    def without_bystanders(
        self, observed: ObservedState, desired: DesiredState, records: Mapping[str, Record]
    ) -> Steps[ObservedState]:
        """Find the ``relevant`` entries of the observed state, in slices of about 0.1 ms.

        ``records``: what binfmtd registered itself.
        """
        if desired.policy.unmanaged is not Unmanaged.KEEP:
            return observed
        if observed is self._last[0] and desired is self._desired and records.keys() == self._recorded:
            return self._last[1]
        self._recorded = frozenset(records)
        if desired is not self._desired:
            self._desired = desired
            self._bystanders.clear()
        bystanders = self._bystanders
        for name in records:
            bystanders.pop(name, None)
        if len(bystanders) > len(observed.entries):
            self._bystanders = bystanders = {e.name: e for e in observed.entries if bystanders.get(e.name) == e}
        relevant = []
        for begin in range(0, len(observed.entries), _A_SLICE):
            entries = observed.entries[begin : begin + _A_SLICE]
            for entry in [entry for entry in entries if bystanders.get(entry.name) is not entry]:
                known = bystanders.get(entry.name) == entry
                if known or (entry.name not in records and self._is_bystander(entry, desired)):
                    bystanders[entry.name] = entry
                else:
                    relevant.append(entry)
            yield
        before, after = self._last
        if observed is not before or after.relevant != tuple(relevant):
            after = observed.with_relevant(tuple(relevant))
            self._last = observed, after
        return after

    def _is_bystander(self, entry: Entry, desired: DesiredState) -> bool:
        name, registration = entry.name, entry.registration
        if is_stand_in(name) or name in desired.by_name or name in desired.unavailable_by_name:
            return False
        if to_be_remembered(name, desired.policy):
            return False
        if registration is None:
            return True  # nothing is known of it but its name
        return not desired.overlapping(registration.match) and not programs_taken(registration.match, self._heads)
