"""Carrying out a plan.

At once: what ends its drift in one write, permanent stand-ins, and temporary ones for what has to be registered.
Then, entry by entry and only where it is due: what is restored of others, the proper registrations and the removals.
An entry that is replaced never leaves its files without a handler: its stand-in is registered first, and if it is a
temporary one removed last.
"""

import errno
from collections.abc import Callable, Iterable
from enum import IntEnum, auto

from binfmtd.errors import WriteRefusedError
from binfmtd.formats.line import encode_line
from binfmtd.kernel.instance import Instance
from binfmtd.kernel.stand_ins import StandIns
from binfmtd.kernel.write import DISABLE, ENABLE, REMOVE, Writer, refusal
from binfmtd.model.bridge import companies
from binfmtd.model.desired import DesiredState
from binfmtd.model.drift import Act, Action, Plan, Record
from binfmtd.model.handler import Flags, Handler
from binfmtd.model.ownership import equal
from binfmtd.model.standin import stand_in_name


class Due(IntEnum):
    """Whether the proper entry of a name may be written."""

    HELD = auto()  # we back off from it
    LATER = auto()  # others may be at work on it
    QUIET = auto()  # unless somebody stirs at the last moment
    FORCED = auto()  # whatever others do


class Outcome:
    """What became of a plan."""

    def __init__(self) -> None:
        self.done: list[Action] = []
        self.failed: list[tuple[Action, WriteRefusedError]] = []
        self.left: list[Action] = []  # not due, or somebody stirred, or its interpreter has to be judged first
        self.bridged: list[str] = []  # names that now have a new stand-in
        self.kept: list[str] = []  # permanent stand-ins that were written
        self.records: dict[str, Record] = {}  # what was registered under proper names
        self.interpreters_moved = False  # an interpreter is not the file that the desired state knows


class Convergence:
    """One plan, one opened instance.

    ``unchanged`` tells if the file at an interpreter's path is still the one that was judged.  ``due`` tells if a name
    may be written; ``disturbed`` if another program has just touched it; ``removed`` if that program wrote to the
    entry's own file, so that it did not go with everything else.
    """

    def __init__(
        self,
        plan: Plan,
        desired: DesiredState,
        instance: Instance,
        writer: Writer,
        *,
        unchanged: Callable[[str], bool],
        due: Callable[[str], Due] = lambda _: Due.FORCED,
        disturbed: Callable[[str], bool] = lambda _: False,
        removed: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._plan = plan
        self._desired = desired
        self._stand_ins = StandIns(desired, plan.yielding_to)
        self._instance = instance
        self._writer = writer
        self._unchanged = unchanged
        self._due = due
        self._disturbed = disturbed
        self._removed = removed
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Do all that is due now; raises WriteRefusedError where nothing can be written (read-only, not root)."""
        for action in self._planned(Act.ENABLE, Act.DISABLE):
            self._control(action, ENABLE if action.act is Act.ENABLE else DISABLE)
        self._keep_stand_ins()
        settling = []
        waiting = []
        for company in companies(self._planned(Act.REGISTER, Act.REPLACE), self._desired):
            # Who is dragged along follows another, whose turn it is.
            due = {action.entry: Due.QUIET if action.dragged else self._due(action.entry) for action in company}
            forced = Due.FORCED in due.values()
            spared = {Due.HELD, Due.LATER} if forced else {Due.HELD}
            held = [action for action in company if due[action.entry] in spared]
            rest = [action for action in company if due[action.entry] not in spared]
            if not forced and Due.LATER in due.values():
                waiting.extend(rest)
            elif any(not action.dragged for action in rest):
                settling.append((company, held, forced))
        self._renew_stand_ins(waiting)
        self._bridge([action for action in waiting if not action.dragged and not self._moved(action)], renew=True)
        self.outcome.left.extend(waiting)
        for action in self._planned(Act.RESTORE):
            if self._is_due(action) and not self._removed(action.entry):
                self._restore(action)
        for company, held, forced in settling:
            self._settle(company, held, forced=forced)
        for action in self._planned(Act.REMOVE):
            if self._is_due(action):
                self._control(action, REMOVE)
        return self.outcome

    def _keep_stand_ins(self) -> None:
        """Have permanent stand-ins as they should be, lowest rank first."""
        again: dict[str, Handler] = {}
        for action in self._plan.stand_ins:
            if action.act is Act.ENABLE:
                self._writer.control(action.entry, ENABLE)
                self.outcome.kept.append(action.entry)
            elif not self._moved(action):
                again[action.entry] = _handler(action)
        done, refused = self._stand_ins.keep(again.values(), self._instance, self._writer)
        self.outcome.kept.extend(done)
        for name in done:
            self.outcome.records[name] = self._record(again[name])
        self.outcome.failed.extend((a, refused[a.entry]) for a in self._plan.stand_ins if a.entry in refused)

    def _planned(self, *acts: Act) -> list[Action]:
        return [action for action in self._plan.actions if action.act in acts]

    def _is_due(self, action: Action) -> bool:
        due = self._due(action.entry)
        if due in (Due.HELD, Due.LATER) or (due is Due.QUIET and self._disturbed(action.entry)):
            self.outcome.left.append(action)
            return False
        return True

    def _control(self, action: Action, command: bytes) -> None:
        self._writer.control(action.entry, command)
        self.outcome.done.append(action)

    def _bridge(
        self, actions: Iterable[Action], company: Iterable[Action] = (), *, renew: bool = False
    ) -> dict[str, WriteRefusedError]:
        """Register stand-ins; ``renew`` those, too, that a newer entry has come to lie above."""
        handlers = [action.handler for action in actions if action.handler is not None]
        names = [action.entry for action in company]
        if renew:
            self.outcome.bridged.extend(self._stand_ins.renew(handlers, self._instance, self._writer)[0])
        bridged, refused = self._stand_ins.bridge(handlers, self._instance, self._writer, names)
        self.outcome.bridged.extend(bridged)
        return refused

    def _settle(self, members: list[Action], held: list[Action], *, forced: bool) -> None:
        """Give a company its proper entries, in ascending rank and back to back.

        Those of its members that are ``held`` stay above the others by their stand-ins, if they are there at all.
        """
        company = [action for action in members if action not in held]
        if any(self._moved(action) for action in members):
            self.outcome.left.extend(company)
            return
        replaced = [action for action in company if action.act is Act.REPLACE]
        self._renew_stand_ins(replaced)
        bridged_before = len(self.outcome.bridged)
        refused = self._bridge(replaced, replaced)
        if refused:
            self._give_up(company, refused, self.outcome.bridged[bridged_before:])
            return
        if not forced and any(self._disturbed(action.entry) for action in company):
            self._bridge(company)
            self.outcome.left.extend(company)
            return
        lines = {action.entry: encode_line(action.entry, _handler(action).registration) for action in company}
        for action in replaced:
            self._writer.control(action.entry, REMOVE)
        for action in held:
            if not any(_handler(action) in self._desired.higher.get(name, ()) for name in lines):
                continue  # it is not above anything that is written
            served = self._writer.control(stand_in_name(action.entry), REMOVE)
            line = self._stand_ins.line(_handler(action))
            if line and (served or action.act is Act.REPLACE):
                lines[action.entry] = line
        ranked = [action for action in members if action.entry in lines]
        opens = [self._desired.opens(_handler(action).registration) for action in ranked]
        opening = {place: path for place, path in enumerate(opens) if path is not None}
        results = self._writer.register([lines[action.entry] for action in ranked], opening)
        too_low = [n for n, error in enumerate(results) if error and self._serves_by_stand_in(ranked[n], error)]
        for number, (action, error) in enumerate(zip(ranked, results, strict=True)):
            if error is None and action in held:
                continue
            if error is None and number < max(too_low, default=0):
                self._writer.control(action.entry, REMOVE)  # it lies above what belongs above it
                self.outcome.left.append(action)
            elif error is None:
                self._finish(action)
            else:
                refused_by = refusal(_handler(action).registration, error)
                self.outcome.failed.append((action, refused_by))

    def _finish(self, action: Action) -> None:
        """Note that the proper entry is registered; a temporary stand-in has served its time."""
        self.outcome.done.append(action)
        self.outcome.records[action.entry] = self._record(_handler(action))
        if action.entry not in self._desired.permanent:
            self._writer.control(stand_in_name(action.entry), REMOVE)

    def _serves_by_stand_in(self, action: Action, error: OSError) -> bool:
        """Whether what the kernel has just refused is served by a stand-in; not if somebody else was faster."""
        return error.errno != errno.EEXIST and self._instance.inode(stand_in_name(action.entry)) is not None

    def _give_up(self, company: list[Action], refused: dict[str, WriteRefusedError], bridged: list[str]) -> None:
        """A member cannot have a stand-in, so none is replaced: whoever is below it would come to lie above it."""
        for name in bridged:
            self._writer.control(stand_in_name(name), REMOVE)
            self.outcome.bridged.remove(name)
        for action in company:
            if error := refused.get(action.entry):
                self.outcome.failed.append((action, error))
            else:
                self.outcome.left.append(action)

    def _restore(self, action: Action) -> None:
        """Register somebody else's entry as it was: without a stand-in, and no record makes it ours."""
        was = _handler(action)
        (error,) = self._writer.register([encode_line(was.name, was.registration)])
        if error is not None and error.errno == errno.EEXIST:
            return  # its owner was faster
        if error is not None:
            self.outcome.failed.append((action, refusal(was.registration, error)))
            return
        if not was.enabled:
            self._writer.control(was.name, DISABLE)
        self.outcome.done.append(action)

    def _renew_stand_ins(self, actions: list[Action]) -> None:
        """Remove stand-ins that serve nobody, or would serve something else in place of an entry that is there."""
        for action in actions:
            entry = self._instance.entry(stand_in_name(action.entry))
            if entry is None:
                continue
            wrong = action.act is Act.REPLACE and not equal(entry.registration, _handler(action).registration)
            if wrong or not entry.enabled:
                self._writer.control(entry.name, REMOVE)

    def _moved(self, action: Action) -> bool:
        """Tell if F would open another file than the one that was judged."""
        registration = _handler(action).registration
        moved = Flags.F in registration.flags and not self._unchanged(registration.interpreter)
        self.outcome.interpreters_moved |= moved
        return moved

    def _record(self, handler: Handler) -> Record:
        """Record the entry just registered; the file that F opened is certain only if it is still the same."""
        path = handler.registration.interpreter
        pinned = None
        if Flags.F in handler.registration.flags:
            if self._unchanged(path):
                pinned = self._desired.fingerprints.get(path)
            else:
                self.outcome.interpreters_moved = True
        return Record(handler.registration, self._instance.inode(handler.name), pinned)


def _handler(action: Action) -> Handler:
    if action.handler is None:
        raise TypeError("what registers carries a handler (model/plan.py)")
    return action.handler
