"""From an event to the kernel's having a handler again: the part that must be fast.

First come lines that need no look: those of stand-ins that another program has removed, and a helper above each entry
that it has registered again.  Then it looks at the entry that an event names or, where it names none, at the declared
names: their inode numbers tell what was registered anew, and only that is read.  It writes stand-ins, and what ends a
drift in one write.  Log, status, ledger and the full look come later, and so does a stand-in whose interpreter has
changed: it has to be judged first.
"""

from collections.abc import Callable, Collection, Iterable, Mapping

from binfmtd.daemon.heard import Heard
from binfmtd.daemon.look import Look
from binfmtd.errors import WriteRefusedError
from binfmtd.kernel.instance import Instance
from binfmtd.kernel.stand_ins import StandIns
from binfmtd.kernel.write import DISABLE, ENABLE, Writer
from binfmtd.model.drift import Drift
from binfmtd.model.entry import Entry
from binfmtd.model.handler import Flags, Handler, Registration
from binfmtd.model.ownership import equal
from binfmtd.model.plan import INSTANCE
from binfmtd.model.standin import is_stand_in, stand_in_name


class Reaction:
    """What the hot path found and did: name -> drift."""

    def __init__(self) -> None:
        self.found: dict[str, Drift] = {}  # has to be settled
        self.ended: dict[str, Drift] = {}  # one write was enough
        self.bridged: list[str] = []  # have a new stand-in
        self.standing: list[str] = []  # have had one already, which serves
        self.kept: list[str] = []  # in order, but for their permanent stand-in, which was written
        self.helped = False  # a helper was registered before it was known whether it is needed
        self.refused: dict[str, WriteRefusedError] = {}
        self.instead: dict[str, Entry] = {}  # what is there, where it is not what should be
        self.wanted: dict[str, Registration] = {}  # what should be there instead


class HotPath:
    """Made after each full look; knows what is declared and which registration each name had."""

    def __init__(
        self,
        look: Look,
        failed: Collection[str],
        may_bridge: Callable[[str], bool],
        may_switch: Callable[[str], bool],
        unchanged: Callable[[str], bool],
    ) -> None:
        """Prepare for the events that follow this look; ``failed`` names are left alone.

        ``may_bridge`` tells if a stand-in may be registered now, ``may_switch`` if an entry may be enabled or disabled:
        not while we back off from it.  ``unchanged`` tells if the file at an interpreter's path is still the one that
        was judged.
        """
        served = look.plan.served_elsewhere
        pauses = look.surroundings.pauses
        skipped = {*served, *failed, *(handler.name for handler in look.desired.handlers if pauses.hold(handler.name))}
        # In ascending rank, as stand-ins have to be registered: the newest wins.
        self._handlers = {handler.name: handler for handler in look.desired.handlers if handler.name not in skipped}
        # Who removes a stand-in takes away what serves.
        self._by_file = {stand_in_name(name): handler for name, handler in self._handlers.items()} | self._handlers
        self._rank = {handler.name: place for place, handler in enumerate(look.desired.handlers)}
        higher = {
            low: [high for high in above if high.name in self._handlers] for low, above in look.desired.higher.items()
        }
        self._higher = {low: above for low, above in higher.items() if above and low in self._handlers}
        self._served = [(look.desired.by_name[name], by) for name, by in served.items() if not pauses.hold(name)]
        self._inodes = {name: entry.inode for name, entry in look.observed.by_name.items()}
        self._there = self._by_file.keys() & look.observed.by_name.keys()  # as far as was noticed
        self._newest_first = [entry.name for entry in look.observed.entries if entry.name in self._there]
        self._switch_paused = pauses.hold(INSTANCE)
        self._permanent = look.desired.permanent
        self._failed = frozenset(failed)
        self._may_bridge = may_bridge
        self._may_switch = may_switch
        self._unchanged = unchanged
        self._stand_ins = StandIns(look.desired, look.plan.yielding_to, look.observed.by_name)
        for handler in look.desired.handlers:
            self._stand_ins.line(handler)  # written now, not in a hurry
        kept = [handler for name, handler in self._handlers.items() if name in self._permanent]
        self._prepared = self._stand_ins.independent(kept)
        registrations = {name: handler.registration for name, handler in self._handlers.items()}
        self._opened = {n: each.interpreter for n, each in registrations.items() if Flags.F in each.flags}
        self._overlaid_by: dict[str, int] = {}  # handler -> the other entry above which its stand-in has been put
        self._helped: set[str] = set()  # handlers with a helper that serves until the entry has been read
        self._rushed: list[str] = []  # handlers that a stand-in was registered for before anything was looked at
        self._gone = {name for name in self._prepared if name not in self._inodes}  # proper entries that are missing

    def react(self, heard: Heard, listen: Callable[[], Heard], instance: Instance, writer: Writer) -> Reaction:
        """Look at what was touched, and see that programs run again.  Raises WriteRefusedError.

        ``listen`` tells what came since; it is added to what was heard.
        """
        reaction = Reaction()
        if heard.names:  # a stand-in that `rush` has registered is looked up; the others count as missing
            self._stand_ins.touched(heard.names.difference(map(stand_in_name, self._rushed)))
        if self._flush_has_begun(heard, instance):
            heard.everything = heard.flushed = True
            self.rush(writer)
        if not heard.flushed:
            self._rush_stand_ins(heard.names, writer)
            if heard.everything and not self._helped:
                self.help(heard, instance, writer)
        try:
            self._answer(heard, listen, instance, writer, reaction)
        finally:
            self._stand_ins.end_help(writer)
            reaction.helped, self._helped = bool(self._helped), set()
        self._gone.update(name for name, d in reaction.found.items() if d is Drift.MISSING and name in self._prepared)
        self._there.difference_update(name for name, drift in reaction.found.items() if drift is Drift.MISSING)
        if not heard.flushed:  # a stand-in may be missing because `may_bridge` has withheld it
            self._there -= {name for name in self._there & heard.names if instance.inode(name) is None}
        self._there.update(map(stand_in_name, (*reaction.bridged, *reaction.kept)))
        return reaction

    def _answer(
        self, heard: Heard, listen: Callable[[], Heard], instance: Instance, writer: Writer, reaction: Reaction
    ) -> None:
        without = self._look(heard, instance, writer, reaction)
        if reaction.found and not heard.names <= heard.written:
            # Gone, and nobody wrote to its file: a flush is heard from its first removal on.  The kernel said that a
            # name is missing when the flush was over, so now all of it has been heard.
            more = listen()
            again = more.everything or not more.names <= {handler.name for handler in without}
            heard.add(more)
            if again:
                for before in (reaction.found, reaction.instead, reaction.wanted):
                    before.clear()
                without = self._look(heard, instance, writer, reaction)
        rushed, self._rushed = self._rushed, []
        if not heard.written and self._all_gone(reaction.found, instance):
            heard.flushed = True  # also if nobody said so: during a storm, or not yet
        without = [handler for handler in without if self._may_open(handler.registration)]
        if without:
            allowed = [handler for handler in without if self._may_bridge(handler.name)]
            enabled = [each.name for each in allowed if self._enabled_again(each, heard, instance, writer)]
            # Another program has registered a newer entry for the same files: no look is needed to know that it wins.
            overlaid = (h.name for h in allowed if h.name in self._prepared and self._is_overlaid(h, reaction))
            certain = set(overlaid).difference(rushed)
            overtaken = self._stand_ins.renew(allowed, instance, writer, certain)
            bridged = self._stand_ins.bridge(allowed, instance, writer)
            new = [name for name in rushed if name in reaction.found]
            reaction.bridged = [*new, *bridged[0], *enabled, *overtaken[0]]
            reaction.refused = bridged[1] | overtaken[1]
            stood = set(reaction.bridged)
            reaction.standing = [h.name for h in without if h.name not in stood and self._stands(h, instance)]
        reaction.kept = [name for name in rushed if name not in reaction.bridged]
        if self._permanent and (heard.names or heard.everything):
            self._keep(heard, instance, writer, reaction)

    def _is_overlaid(self, handler: Handler, reaction: Reaction) -> bool:
        """Whether another program has registered a new entry under the handler's name that takes the same files."""
        name, entry = handler.name, reaction.instead.get(handler.name)
        if entry is None or entry.registration is None or entry.registration.match != handler.registration.match:
            return False
        new = entry.inode not in (self._inodes.get(name), self._overlaid_by.get(name))
        self._overlaid_by[name] = entry.inode
        return new

    def is_served(self, heard: Heard) -> bool:
        """Whether other programs have touched only proper entries, and a stand-in serves for each of these."""
        alone = heard.names <= self._prepared.keys() and not (heard.flushed or heard.overflow)
        return alone and bool(heard.written) and all(self._stand_ins.has_met(stand_in_name(n)) for n in heard.names)

    def help(self, heard: Heard, instance: Instance, writer: Writer) -> bool:
        """Register a helper above each proper entry that another program has removed, and then registered again.

        It serves until ``react`` has read the entry.  True if there is such an entry.  Raises WriteRefusedError.
        """
        missing = self._gone | (heard.written & self._prepared.keys())
        back = {name for name in missing if instance.inode(name) not in (None, self._inodes.get(name))}
        helped = [self._handlers[name] for name in back.difference(self._rushed) if self._may_open_of(name)]
        if helped and self._may_bridge(helped[0].name):
            self._stand_ins.help(helped, writer)
            self._gone -= back
            self._helped |= back
        return bool(back)

    def _flush_has_begun(self, heard: Heard, instance: Instance) -> bool:
        """Tell if a flush has removed more entries than the events have named so far.

        A removal by name comes with a write to the entry's own file, a flush does not.  A flush removes the newest
        entries first, so the newest entry that no event has named is looked up.
        """
        if heard.flushed or heard.written or heard.everything or not heard.names:
            return False
        other = next((name for name in self._newest_first if name in self._there and name not in heard.names), None)
        return other is not None and instance.inode(other) is None

    def rush(self, writer: Writer) -> None:
        """Register all permanent stand-ins before anything is looked at: a flush has removed them.

        ``react`` comes next.  Those that are still there are refused with EEXIST.  Raises WriteRefusedError.
        """
        prepared, rushed = self._prepared, self._rushed
        if rushed:
            prepared = {name: line for name, line in prepared.items() if name not in rushed}
        if prepared and self._may_bridge(next(iter(prepared))):
            self._rushed += self._stand_ins.rush(prepared, self._may_open_of, writer)

    def _rush_stand_ins(self, names: Collection[str], writer: Writer) -> None:
        """Register the prepared stand-ins among these names, which another program has touched.

        While we back off from a handler it is looked at first: another daemon may be about to exchange its stand-in.
        """
        ours = (name for name in names if is_stand_in(name) and name in self._by_file and name not in self._failed)
        touched = [name for name in (self._by_file[each].name for each in ours) if self._may_switch(name)]
        lines = {name: self._prepared[name] for name in touched if name in self._prepared}
        if lines and self._may_bridge(touched[0]):
            self._rushed += self._stand_ins.rush(lines, self._may_open_of, writer)

    def _may_open_of(self, name: str) -> bool:
        path = self._opened.get(name)
        return path is None or self._unchanged(path)

    def _stands(self, handler: Handler, instance: Instance) -> bool:
        entry = instance.entry(stand_in_name(handler.name))
        return entry is not None and entry.enabled and equal(entry.registration, handler.registration)

    def _keep(self, heard: Heard, instance: Instance, writer: Writer, reaction: Reaction) -> None:
        """Register or enable the permanent stand-ins of handlers that are in order themselves."""
        missing = []
        for handler in self._concerned(heard):
            name = stand_in_name(handler.name)
            asked = name in heard.names or not heard.names
            if not asked or handler.name in reaction.found or handler.name not in self._permanent:
                continue
            touched = name in heard.written or not heard.everything
            if name in self._failed or (not touched and instance.inode(name) is not None):
                continue
            if self._stands(handler, instance) or not self._may_bridge(handler.name):
                continue
            if self._enabled_again(handler, heard, instance, writer):
                reaction.kept.append(handler.name)
            elif instance.inode(name) is None and self._may_open(handler.registration):
                missing.append(handler)
        if missing:
            reaction.kept += self._stand_ins.bridge(missing, instance, writer)[0]

    def _look(self, heard: Heard, instance: Instance, writer: Writer, reaction: Reaction) -> list[Handler]:
        """The handlers that need a stand-in, in ascending rank; what one write ends is ended."""
        if heard.flushed and not self._switch_paused:
            if instance.switched_on():
                if not heard.names and not self._rushed:  # before 6.18 a flush names no entry
                    self.rush(writer)
            elif self._may_bridge(INSTANCE):
                writer.control(INSTANCE, ENABLE)
                reaction.ended[INSTANCE] = Drift.SWITCHED_OFF
            else:
                reaction.found[INSTANCE] = Drift.SWITCHED_OFF
        without = [
            handler for handler in self._concerned(heard) if self._lacks(handler, heard, instance, writer, reaction)
        ]
        also = self._overtaken(heard, instance, reaction)
        if self._served:
            also += self._deserted(heard, instance, reaction)
        if also:
            without = sorted([*without, *also], key=lambda handler: self._rank[handler.name])
        return without

    def _may_open(self, registration: Registration) -> bool:
        return Flags.F not in registration.flags or self._unchanged(registration.interpreter)

    def _all_gone(self, found: Mapping[str, Drift], instance: Instance) -> bool:
        """Whether nothing of ours is left, not even a stand-in, and some of it went just now: that is a flush."""
        if not self._all_missing(found):
            return False
        before, self._there = self._there, {n for n in self._there - found.keys() if instance.inode(n) is not None}
        return bool(before) and not self._there

    def nothing_left(self, found: Mapping[str, Drift]) -> bool:
        """Whether the last look met nothing of ours at all, given what it ``found`` to do."""
        return self._all_missing(found) and not self._there

    def _all_missing(self, found: Mapping[str, Drift]) -> bool:
        """Whether every one of several handlers was found to have no entry."""
        drifts = [found.get(name) for name, handler in self._handlers.items() if handler.enabled]
        return len(self._handlers) > 1 and set(drifts) == {Drift.MISSING}

    def _concerned(self, heard: Heard) -> Iterable[Handler]:
        if heard.everything:
            return self._handlers.values()
        if len(heard.names) == 1:
            (name,) = heard.names
            return [self._by_file[name]] if name in self._by_file else []
        touched = {self._by_file[name].name for name in heard.names if name in self._by_file}
        return [handler for name, handler in self._handlers.items() if name in touched]

    def _lacks(self, handler: Handler, heard: Heard, instance: Instance, writer: Writer, reaction: Reaction) -> bool:
        """Whether the handler needs a stand-in."""
        name = handler.name
        inode = instance.inode(name)
        if inode is not None and inode == self._inodes.get(name) and name not in heard.names:
            return False
        entry = None if inode is None else instance.entry(name)
        drift = self._drift(handler, entry)
        if drift is not None:
            reaction.found[name] = drift
            if entry is not None:
                reaction.instead[name] = entry
                reaction.wanted[name] = handler.registration
            return True
        if entry is not None and entry.enabled != handler.enabled:
            drift = Drift.DISABLED if handler.enabled else Drift.CHANGED
            if self._may_switch(name):
                writer.control(name, ENABLE if handler.enabled else DISABLE)
                reaction.ended[name] = drift
            else:
                reaction.found[name] = drift
        return False

    def _drift(self, handler: Handler, entry: Entry | None) -> Drift | None:
        if not handler.enabled:
            return None
        if entry is None:
            return Drift.MISSING
        if not equal(entry.registration, handler.registration):
            return Drift.CHANGED
        if Flags.F in handler.registration.flags and entry.inode != self._inodes.get(handler.name):
            return Drift.STALE_INTERPRETER  # somebody registered the same, and who knows which file F opened
        return None

    def _enabled_again(self, handler: Handler, heard: Heard, instance: Instance, writer: Writer) -> bool:
        """Enable its stand-in if another program has disabled it; False if there is none, as after a flush."""
        name = stand_in_name(handler.name)
        entry = instance.entry(name) if name in heard.written or not heard.everything else None
        if entry is None or entry.enabled or not equal(entry.registration, handler.registration):
            return False
        writer.control(name, ENABLE)
        return True

    def _overtaken(self, heard: Heard, instance: Instance, reaction: Reaction) -> list[Handler]:
        """Handlers that should stand above one which somebody has just registered anew."""
        found: dict[str, Handler] = {}
        if not heard.everything:
            return []  # registering names no entry
        for low, higher in self._higher.items():
            inode = instance.inode(low)
            if inode is not None and inode != self._inodes.get(low):
                found |= {high.name: high for high in higher if high.name not in reaction.found}
        reaction.found |= dict.fromkeys(found, Drift.OUT_OF_ORDER)
        return list(found.values())

    def _deserted(self, heard: Heard, instance: Instance, reaction: Reaction) -> list[Handler]:
        """Handlers that left their files to a foreign entry which is no longer there."""
        found = []
        for handler, by in self._served:
            if heard.everything or by in heard.names:
                entry = instance.entry(by)
                if entry is None or not entry.enabled:
                    reaction.found[handler.name] = Drift.MISSING
                    found.append(handler)
        return found
