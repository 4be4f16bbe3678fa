"""The fast part of a repair: from an event to an entry that serves again.

1. Write prepared registration lines, before any entry is read: those of stand-ins that another program has removed, and
   that of a helper above each proper entry that it has registered again.
2. Look up the entry that an event names or, if it names none, all declared names.  The inode number is new with each
   registration, so only an entry with a new number, or one that an event names, is read.
3. Register the stand-ins that are missing, and end each drift that one write ends.

Log, status, ledger and the pass come later.  So does a stand-in whose interpreter has changed: the new file has to be
judged first.

Example: events show that a flush has begun.  Step 1 writes the lines of all prepared stand-ins with two system calls,
and programs run again.  Proper entries and the other stand-ins follow.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Protocol

from binfmtd.daemon.assessment import Assessment
from binfmtd.daemon.entries.entry_state import NOT_READ, StateTable
from binfmtd.daemon.watches.events import PendingEvents
from binfmtd.errors import WriteRefusedError
from binfmtd.kernel.instance import Instance
from binfmtd.kernel.stand_ins import StandIns
from binfmtd.kernel.writer import DISABLE, ENABLE, Writer
from binfmtd.model.classify import classify_drift, one_write_ends
from binfmtd.model.drift import Drift
from binfmtd.model.entry import Entry, ObservedState
from binfmtd.model.handler import Flags, Handler, Registration
from binfmtd.model.ownership import equal
from binfmtd.model.pause import Pauses
from binfmtd.model.plan import INSTANCE
from binfmtd.model.stand_in import is_stand_in, stand_in_name


class Gate(Protocol):
    """The permissions that a fast repair needs."""

    def may_add_stand_in(self, name: str) -> bool:
        """Return True if a stand-in may be registered now."""

    def may_switch(self, name: str) -> bool:
        """Return True if an entry may be enabled or disabled: not while the daemon backs off from it."""


class FastRepairResult:
    """The drifts that a fast repair found, by name, and what it wrote."""

    def __init__(self) -> None:
        self.drifts: dict[str, Drift] = {}  # that a pass has to end
        self.fixed: dict[str, Drift] = {}  # drifts that one write has ended
        self.bridged: list[str] = []  # handlers whose stand-in was registered, enabled or put on top now
        self.standing: list[str] = []  # handlers whose stand-in was there before, and serves
        self.kept: list[str] = []  # handlers in order but for their permanent stand-in, which was written
        self.helped = False  # a helper was registered before the entry below it was read
        self.refused: dict[str, WriteRefusedError] = {}
        self.actual: dict[str, Entry] = {}  # the entry under a name, if it is not as declared
        self.expected: dict[str, Registration] = {}  # what the name should have instead

    @property
    def repaired(self) -> bool:
        """True if it wrote anything but helpers, which are removed again."""
        return bool(self.bridged or self.kept or self.fixed)


class FastRepair:
    """The declared handlers and the entries at the last pass, prepared for fast repairs; each pass makes a new one."""

    def __init__(
        self,
        assessment: Assessment,
        states: StateTable,
        gate: Gate,
        unchanged: Callable[[str], bool],
    ) -> None:
        """Prepare for the events that follow this assessment; names that were refused, or are blocked, are left alone.

        Records in the state table which entries it has found.  ``unchanged`` returns True if the file at an
        interpreter's path is still the one that was judged.
        """
        failed = states.failed().keys() | assessment.plan.blocked.keys()
        desired, served, pauses = assessment.desired, assessment.plan.served_elsewhere, assessment.context.pauses
        inodes = {entry.name: entry.inode for entry in assessment.observed.relevant}
        self._desired = desired
        self._all_states = states
        self._inodes = inodes
        self._rank = {handler.name: place for place, handler in enumerate(desired.handlers)}
        self._above = desired.all_higher
        self._yielding = assessment.plan.yielding_to
        self._permanent = desired.permanent
        self._failed = frozenset(failed)
        self._may_add_stand_in = gate.may_add_stand_in
        self._may_switch = gate.may_switch
        self._unchanged = unchanged
        self._stand_ins = StandIns(desired, self._yielding, inodes, _bystanders(assessment.observed))
        for handler in desired.handlers:
            self._stand_ins.line(handler)  # encoded now, not within a repair
        self._overlaid_by: dict[str, int] = {}  # handler -> inode of the other entry above which its stand-in was put
        self._helped: set[str] = set()  # handlers whose helper serves until their proper entry has been read
        self._rushed: list[str] = []  # handlers whose stand-in was registered before any entry was read
        # In ascending rank, the order in which stand-ins are registered: the newest entry wins.
        self._handlers = {
            handler.name: handler
            for handler in desired.handlers
            if handler.name not in served and handler.name not in failed
        }
        self._served = [(desired.by_name[name], by) for name, by in served.items()]
        registrations = {handler.name: handler.registration for handler in desired.handlers}
        self._opened = {name: each.interpreter for name, each in registrations.items() if Flags.F in each.flags}
        self._switch_paused = False
        self._gone = {handler.name for handler in desired.handlers if handler.name not in inodes}  # whose proper entry
        self.hold(pauses)
        for name, state in states.items():
            state.inode = inodes.get(name) if name in self._states else None

    def hold(self, pauses: Pauses) -> None:
        """Leave alone what these pauses hold, from now on."""
        self._handlers = {name: handler for name, handler in self._handlers.items() if not pauses.hold(name)}
        self._served = [(handler, by) for handler, by in self._served if not pauses.hold(handler.name)]
        self._switch_paused |= pauses.hold(INSTANCE)
        # An event on a stand-in concerns its handler, too: the stand-in may be what serves.
        self._by_file = {stand_in_name(name): handler for name, handler in self._handlers.items()} | self._handlers
        higher = {
            low: [high for high in above if high.name in self._handlers]
            for low, above in self._desired.higher.items()
            if low in self._handlers
        }
        self._higher = {low: above for low, above in higher.items() if above}
        self._states = {name: self._all_states[name] for name in self._by_file}
        self._newest_first = [name for name in self._inodes if name in self._states]
        self._independent = self._stand_ins.independent(self._handlers.values())
        self._prepared = {name: line for name, line in self._independent.items() if name in self._permanent}
        self._gone &= self._prepared.keys()

    def react(
        self, events: PendingEvents, read_more: Callable[[], PendingEvents], instance: Instance, writer: Writer
    ) -> FastRepairResult:
        """Read the entries that were touched, and write what makes programs run again.

        ``read_more`` returns the events that came since; they are added to ``events``.
        Raises WriteRefusedError and MountError.
        """
        reaction = FastRepairResult()
        if events.entries:  # one that `rush` has registered is looked up; the others count as missing
            self._stand_ins.touched(events.entries.difference(map(stand_in_name, self._rushed)))
        if self._flush_has_begun(events, instance):
            events.any_entry = events.flushed = True
            self.rush(writer)
        if not events.flushed:
            self._rush_stand_ins(events.entries, writer)
            if events.any_entry and not self._helped:
                self.help(events, instance, writer)
        try:
            self._answer(events, read_more, instance, writer, reaction)
        finally:
            self._stand_ins.end_help(writer)
            reaction.helped, self._helped = bool(self._helped), set()
        self._gone.update(name for name, d in reaction.drifts.items() if d is Drift.MISSING and name in self._prepared)
        self._mark_missing(name for name, drift in reaction.drifts.items() if drift is Drift.MISSING)
        if not events.flushed:  # a stand-in may be missing because it was withheld
            touched = events.entries & self._states.keys()
            self._mark_missing(name for name in touched if self._exists(name) and instance.inode(name) is None)
        for name in map(stand_in_name, (*reaction.bridged, *reaction.kept)):
            if name in self._states:  # else a foreign entry has served instead of the handler until now
                self._states[name].inode = NOT_READ
        return reaction

    def _answer(
        self,
        events: PendingEvents,
        read_more: Callable[[], PendingEvents],
        instance: Instance,
        writer: Writer,
        reaction: FastRepairResult,
    ) -> None:
        without = self._look(events, instance, writer, reaction)
        if reaction.drifts and not events.entries <= events.entries_written:
            # An entry is gone, and no process wrote to its file: perhaps a flush.  From Linux 6.18 on a flush raises
            # an event for each entry, and removes all of them under one lock, for which the lookup of a missing name
            # waits.  So all events of the flush are in the queue by now: read it once more.
            more = read_more()
            again = more.any_entry or not more.entries <= {handler.name for handler in without}
            events.add(more)
            if again:
                for before in (reaction.drifts, reaction.actual, reaction.expected):
                    before.clear()
                reaction.standing.clear()
                without = self._look(events, instance, writer, reaction)
        rushed, self._rushed = self._rushed, []
        if not events.entries_written and self._all_gone(reaction.drifts, instance):
            events.flushed = True  # even without its event, which may be unread or yet to come
        without = [handler for handler in without if self._may_open(handler.name)]
        if without:
            allowed = [handler for handler in without if self._may_add_stand_in(handler.name)]
            if self._need_no_look(allowed, events, reaction):
                bridged, reaction.refused = self._stand_ins.register(allowed, writer)
            else:
                bridged = self._bridge(allowed, rushed, events, instance, writer, reaction)
            reaction.bridged = [*(name for name in rushed if name in reaction.drifts), *bridged]
            stood = set(reaction.bridged)
            reaction.standing += [h.name for h in without if h.name not in stood and self._stands(h, instance)]
        reaction.kept = [name for name in rushed if name not in reaction.bridged]
        if self._permanent and (events.entries or events.any_entry):
            self._keep(events, instance, writer, reaction)

    def _need_no_look(self, handlers: Iterable[Handler], events: PendingEvents, reaction: FastRepairResult) -> bool:
        """Return True if no entry has to be read before these handlers' stand-ins are registered.

        Each has no proper entry, its stand-in did not exist at the last look, and no other handler takes its files.
        """
        for handler in handlers:
            stand_in = stand_in_name(handler.name)
            may_exist = stand_in in events.entries or self._stand_ins.has_met(stand_in)
            if may_exist or handler.name in reaction.actual or handler.name not in self._independent:
                return False
        return True

    def _bridge(
        self,
        handlers: list[Handler],
        rushed: Collection[str],
        events: PendingEvents,
        instance: Instance,
        writer: Writer,
        reaction: FastRepairResult,
    ) -> list[str]:
        """Enable, register or put on top these handlers' stand-ins; return the handlers where that was done."""
        enabled = [handler.name for handler in handlers if self._enabled_again(handler, events, instance, writer)]
        # Another program has registered a newer entry for the same files: it wins, so the order need not be read.
        overlaid = (h.name for h in handlers if h.name in self._prepared and self._is_overlaid(h, reaction))
        certain = set(overlaid).difference(rushed)
        overtaken = self._stand_ins.renew(handlers, instance, writer, certain)
        bridged = self._stand_ins.bridge(handlers, instance, writer)
        reaction.refused = bridged[1] | overtaken[1]
        return [*bridged[0], *enabled, *overtaken[0]]

    def _is_overlaid(self, handler: Handler, reaction: FastRepairResult) -> bool:
        """Return True if another program's entry has the handler's name and match, and was not met before."""
        name, entry = handler.name, reaction.actual.get(handler.name)
        if entry is None or entry.registration is None or entry.registration.match != handler.registration.match:
            return False
        new = entry.inode not in (self._states[name].inode, self._overlaid_by.get(name))
        self._overlaid_by[name] = entry.inode
        return new

    def is_served(self, events: PendingEvents) -> bool:
        """Return True if other programs have touched only proper entries, and a stand-in serves each of these."""
        alone = events.entries <= self._prepared.keys() and not (events.flushed or events.overflow)
        if not (alone and events.entries_written):
            return False
        return all(self._stand_ins.has_met(stand_in_name(name)) for name in events.entries)

    def help(self, events: PendingEvents, instance: Instance, writer: Writer) -> bool:
        """Register a helper above each proper entry that another program has removed, and then registered again.

        The helper serves until ``react`` has read the entry.  Return True if there is such an entry.
        Raises WriteRefusedError.
        """
        missing = self._gone | (events.entries_written & self._prepared.keys())
        back = {name for name in missing if instance.inode(name) not in (None, self._states[name].inode)}
        helped = [self._handlers[name] for name in back.difference(self._rushed) if self._may_open(name)]
        if helped and self._may_add_stand_in(helped[0].name):
            self._stand_ins.help(helped, writer)
            self._gone -= back
            self._helped |= back
        return bool(back)

    def _flush_has_begun(self, events: PendingEvents, instance: Instance) -> bool:
        """Return True if a flush has removed more entries than the events have named so far.

        A removal by name comes with a write to the entry's own file, a flush does not.  A flush removes the newest
        entries first, so the newest entry that no event has named is looked up.
        """
        if events.flushed or events.entries_written or events.any_entry or not events.entries:
            return False
        other = next((name for name in self._newest_first if self._exists(name) and name not in events.entries), None)
        return other is not None and instance.inode(other) is None

    def rush(self, writer: Writer) -> None:
        """Register all prepared stand-ins before any entry is read, since a flush has removed them.

        ``react`` comes next.  The kernel refuses those that are still there with EEXIST.
        Raises WriteRefusedError, and FileNotFoundError if the instance is gone.
        """
        prepared, rushed = self._prepared, self._rushed
        if rushed:
            prepared = {name: line for name, line in prepared.items() if name not in rushed}
        if prepared and self._may_add_stand_in(next(iter(prepared))):
            self._rushed += self._stand_ins.rush(prepared, self._may_open, writer)

    def _rush_stand_ins(self, names: Collection[str], writer: Writer) -> None:
        """Register the prepared stand-ins among these names, which another program has touched.

        While the daemon backs off from a handler, its stand-in is read first: another daemon may be exchanging it.
        """
        ours = [name for name in names if is_stand_in(name) and name in self._by_file and name not in self._failed]
        if not ours:
            return
        touched = [name for name in (self._by_file[stand_in].name for stand_in in ours) if self._may_switch(name)]
        lines = {name: self._prepared[name] for name in touched if name in self._prepared}
        if lines and self._may_add_stand_in(touched[0]):
            self._rushed += self._stand_ins.rush(lines, self._may_open, writer)

    def _may_open(self, name: str) -> bool:
        """Return True unless the kernel would open an interpreter's file that has not been judged."""
        path = self._opened.get(name)
        return path is None or self._unchanged(path)

    def _stands(self, handler: Handler, instance: Instance) -> bool:
        entry = instance.entry(stand_in_name(handler.name))
        return entry is not None and entry.enabled and equal(entry.registration, handler.registration)

    def _keep(self, events: PendingEvents, instance: Instance, writer: Writer, reaction: FastRepairResult) -> None:
        """Register or enable the permanent stand-ins of handlers that are in order themselves.

        The stand-ins that belong above a missing one are registered again after it.  If one of these may not be
        written, the missing one is left to the pass.
        """
        missing = []
        for handler in self._concerned(events):
            name = stand_in_name(handler.name)
            asked = name in events.entries or not events.entries
            if not asked or handler.name in reaction.drifts or handler.name not in self._permanent:
                continue
            touched = name in events.entries_written or not events.any_entry
            if name in self._failed or (not touched and instance.inode(name) is not None):
                continue
            if self._stands(handler, instance) or not self._may_add_stand_in(handler.name):
                continue
            if self._enabled_again(handler, events, instance, writer):
                reaction.kept.append(handler.name)
            elif instance.inode(name) is None and self._may_open(handler.name):
                missing.append(handler)
        alone = [handler for handler in missing if not self._above[handler.name]]
        if alone:
            reaction.kept += self._stand_ins.bridge(alone, instance, writer)[0]
        below = [handler.name for handler in missing if self._above[handler.name]]
        names = {*below, *(name for low in below for name in self._above[low])}
        if names and all(map(self._may_move, names)):
            ranked = sorted(names, key=self._rank.__getitem__)
            done, _ = self._stand_ins.keep([self._permanent[name] for name in ranked], instance, writer)
            reaction.kept += [name for name in ranked if stand_in_name(name) in done]

    def _may_move(self, name: str) -> bool:
        """Return True if the handler's permanent stand-in may be registered on top of all other entries."""
        kept = name in self._handlers and name in self._permanent and name not in self._yielding
        return kept and self._may_open(name)

    def _look(
        self, events: PendingEvents, instance: Instance, writer: Writer, reaction: FastRepairResult
    ) -> list[Handler]:
        """End the drifts that one write ends; return the handlers that need a stand-in, in ascending rank."""
        if events.flushed and not self._switch_paused:
            if instance.switched_on():
                if not events.entries and not self._rushed:  # before Linux 6.18 the events of a flush name no entry
                    self.rush(writer)
            elif self._may_add_stand_in(INSTANCE):
                writer.control(INSTANCE, ENABLE)
                reaction.fixed[INSTANCE] = Drift.SWITCHED_OFF
            else:
                reaction.drifts[INSTANCE] = Drift.SWITCHED_OFF
        without = [
            handler for handler in self._concerned(events) if self._lacks(handler, events, instance, writer, reaction)
        ]
        also = self._overtaken(events, instance, reaction)
        if self._served:
            also += self._deserted(events, instance, reaction)
        if also:
            without = sorted([*without, *also], key=lambda handler: self._rank[handler.name])
        return without

    def _all_gone(self, drifts: Mapping[str, Drift], instance: Instance) -> bool:
        """Return True if a flush has just removed our last entry: not even a stand-in is left."""
        if not self._all_missing(drifts):
            return False
        before = [name for name in self._states if self._exists(name)]
        self._mark_missing(name for name in before if name in drifts or instance.inode(name) is None)
        return bool(before) and not any(map(self._exists, before))

    def nothing_left(self, drifts: Mapping[str, Drift]) -> bool:
        """Return True if the assessment found no entry of ours; ``drifts`` are those that it found."""
        return self._all_missing(drifts) and not any(map(self._exists, self._states))

    def _exists(self, name: str) -> bool:
        """Return True if the entry exists, as far as was noticed."""
        return self._states[name].inode is not None

    def _mark_missing(self, names: Iterable[str]) -> None:
        for name in names:
            if name in self._states:
                self._states[name].inode = None

    def _all_missing(self, drifts: Mapping[str, Drift]) -> bool:
        """Return True if there are several handlers, and all that are enabled were found to have no entry."""
        of_enabled = [drifts.get(name) for name, handler in self._handlers.items() if handler.enabled]
        return len(self._handlers) > 1 and set(of_enabled) == {Drift.MISSING}

    def _concerned(self, events: PendingEvents) -> Iterable[Handler]:
        if events.any_entry:
            return self._handlers.values()
        if len(events.entries) == 1:
            (name,) = events.entries
            return [self._by_file[name]] if name in self._by_file else []
        touched = {self._by_file[name].name for name in events.entries if name in self._by_file}
        return [handler for name, handler in self._handlers.items() if name in touched]

    def _lacks(
        self, handler: Handler, events: PendingEvents, instance: Instance, writer: Writer, reaction: FastRepairResult
    ) -> bool:
        """Return True if the handler needs a stand-in; record its drift, and end it if one write does."""
        name = handler.name
        inode = instance.inode(name)
        if inode is not None and inode == self._states[name].inode and name not in events.entries:
            return False
        entry = None if inode is None else instance.entry(name)
        is_new = entry is not None and entry.inode != self._states[name].inode
        drift_and_words = classify_drift(handler, entry, "another program has registered the entry" if is_new else None)
        if drift_and_words is None:
            return False
        drift = drift_and_words[0]
        if one_write_ends(drift, handler):
            if self._may_switch(name):
                writer.control(name, ENABLE if handler.enabled else DISABLE)
                reaction.fixed[name] = drift
            else:
                reaction.drifts[name] = drift
                if self._stands(handler, instance):
                    reaction.standing.append(name)
            return False
        reaction.drifts[name] = drift
        if entry is not None:
            reaction.actual[name] = entry
            reaction.expected[name] = handler.registration
        return True

    def _enabled_again(self, handler: Handler, events: PendingEvents, instance: Instance, writer: Writer) -> bool:
        """Enable the handler's stand-in if another program has disabled it; return True if so.

        It is not read if no event names it, and none was there before, or events may concern all entries, as after a
        flush: then there is none.
        """
        name = stand_in_name(handler.name)
        was_there = name in events.entries or self._stand_ins.has_met(name)
        read = name in events.entries_written or (was_there and not events.any_entry)
        entry = instance.entry(name) if read else None
        if entry is None or entry.enabled or not equal(entry.registration, handler.registration):
            return False
        writer.control(name, ENABLE)
        return True

    def _overtaken(self, events: PendingEvents, instance: Instance, reaction: FastRepairResult) -> list[Handler]:
        """Return the handlers that belong above one which another program has just registered anew."""
        overtaken: dict[str, Handler] = {}
        if not events.any_entry:
            return []  # the event of a registration names no entry
        for low, higher in self._higher.items():
            inode = instance.inode(low)
            if inode is not None and inode != self._states[low].inode:
                overtaken |= {high.name: high for high in higher if high.name not in reaction.drifts}
        reaction.drifts |= dict.fromkeys(overtaken, Drift.OUT_OF_ORDER)
        return list(overtaken.values())

    def _deserted(self, events: PendingEvents, instance: Instance, reaction: FastRepairResult) -> list[Handler]:
        """Return the handlers whose files a foreign entry served that is now gone or disabled."""
        deserted = []
        for handler, by in self._served:
            if events.any_entry or by in events.entries:
                entry = instance.entry(by)
                if entry is None or not entry.enabled:
                    reaction.drifts[handler.name] = Drift.MISSING
                    deserted.append(handler)
        return deserted


def _bystanders(observed: ObservedState) -> Iterator[int]:
    """Yield the inode numbers of the entries that concern no handler (daemon/entries/entry_index.py)."""
    relevant = {entry.inode for entry in observed.relevant}
    yield from (entry.inode for entry in observed.entries if entry.inode not in relevant)
