"""The execution of a plan.

Immediately, whatever other programs do:

* Entries are enabled and disabled, which ends such a drift in one write.
* Permanent stand-ins are registered or enabled.
* Temporary stand-ins are registered for the entries that are to be registered, but are not due yet.

Then, and only for names that are due: foreign entries are restored, proper entries registered or replaced, and unwanted
entries removed.  While an entry is replaced, its files always have a handler: its stand-in is registered before the
entry is removed.  A temporary stand-in is removed last.
"""

import errno
from collections.abc import Callable, Iterable

from binfmtd.errors import Again, WriteRefusedError
from binfmtd.formats.register_line import encode_line
from binfmtd.kernel.instance import Instance
from binfmtd.kernel.stand_ins import StandIns
from binfmtd.kernel.write_gate import WriteGate, WritePermission
from binfmtd.kernel.writer import DISABLE, ENABLE, REMOVE, Writer, refusal
from binfmtd.model.bridge import ordering_groups
from binfmtd.model.desired import DesiredState
from binfmtd.model.drift import Act, Action, Plan, Record
from binfmtd.model.handler import Flags, Handler
from binfmtd.model.ownership import equal
from binfmtd.model.stand_in import stand_in_name


class Outcome:
    """The result of executing a plan."""

    def __init__(self) -> None:
        self.done: list[Action] = []
        self.failed: list[tuple[Action, WriteRefusedError]] = []
        self.left: list[Action] = []  # not due, just touched, its interpreter to be judged first, or its group refused
        self.bridged: list[str] = []  # names that have a new stand-in
        self.kept: list[str] = []  # names of the permanent stand-ins that were written
        self.records: dict[str, Record] = {}  # by entry: proper ones and permanent stand-ins that were registered
        self.interpreters_moved = False  # an interpreter is not the file in the desired state


class PlanExecutor:
    """One plan, to be executed on one opened instance.

    ``gate`` is asked before each write.  ``unchanged`` returns True if the file at an interpreter's path is still the
    one that was judged.
    """

    def __init__(
        self,
        plan: Plan,
        desired: DesiredState,
        instance: Instance,
        writer: Writer,
        gate: WriteGate,
        unchanged: Callable[[str], bool],
    ) -> None:
        self._plan = plan
        self._desired = desired
        self._stand_ins = StandIns(desired, plan.yielding_to)
        self._instance = instance
        self._writer = writer
        self._unchanged = unchanged
        self._gate = gate
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Do everything that is due now.  Raises WriteRefusedError if nothing can be written (read-only, not root)."""
        for action in self._planned(Act.ENABLE, Act.DISABLE):
            self._control(action, ENABLE if action.act is Act.ENABLE else DISABLE)
        self._keep_stand_ins()
        due_groups = []
        waiting = []
        for group in ordering_groups(self._planned(Act.REGISTER, Act.REPLACE), self._desired):
            due = {action.entry: self._permission(action) for action in group}
            forced = WritePermission.NOW in due.values()
            not_now = {WritePermission.BACKOFF, WritePermission.WAIT} if forced else {WritePermission.BACKOFF}
            backing_off = [action for action in group if due[action.entry] in not_now]
            rest = [action for action in group if due[action.entry] not in not_now]
            if not forced and WritePermission.WAIT in due.values():
                waiting.extend(rest)
            elif any(not action.for_order_only for action in rest):
                due_groups.append((group, backing_off, forced))
        self._renew_stand_ins(waiting)
        self._bridge(
            [action for action in waiting if not action.for_order_only and not self._moved(action)], renew=True
        )
        self.outcome.left.extend(waiting)
        for action in self._planned(Act.RESTORE):
            if self._is_due(action) and not self._gate.removed_by_name(action.entry):
                self._restore(action)
        for group, backing_off, forced in due_groups:
            self._register_group(group, backing_off, forced=forced)
        for action in self._planned(Act.REMOVE):
            if self._is_due(action):
                self._control(action, REMOVE)
        return self.outcome

    def _keep_stand_ins(self) -> None:
        """Enable or register permanent stand-ins as planned, lowest rank first."""
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

    def _permission(self, action: Action) -> WritePermission:
        """Return the permission for one member of a group.

        An entry that moves only to stay above another one is written with that one, whose permission decides.
        """
        return WritePermission.IF_UNTOUCHED if action.for_order_only else self._gate.permission(action.entry)

    def _planned(self, *acts: Act) -> list[Action]:
        return [action for action in self._plan.actions if action.act in acts]

    def _is_due(self, action: Action) -> bool:
        permission = self._gate.permission(action.entry)
        if permission is WritePermission.IF_UNTOUCHED:
            permission = WritePermission.WAIT if self._gate.touched_since_read(action.entry) else WritePermission.NOW
        if permission is not WritePermission.NOW:
            self.outcome.left.append(action)
        return permission is WritePermission.NOW

    def _control(self, action: Action, command: bytes) -> None:
        self._writer.control(action.entry, command)
        self.outcome.done.append(action)

    def _bridge(
        self, actions: Iterable[Action], group: Iterable[Action] = (), *, renew: bool = False
    ) -> dict[str, WriteRefusedError]:
        """Register stand-ins, and return the refusals by name.

        With ``renew``, stand-ins that lie below a newer entry are also put on top again.
        """
        handlers = [action.handler for action in actions if action.handler is not None]
        names = [action.entry for action in group]
        if renew:
            self.outcome.bridged.extend(self._stand_ins.renew(handlers, self._instance, self._writer)[0])
        bridged, refused = self._stand_ins.bridge(handlers, self._instance, self._writer, names)
        self.outcome.bridged.extend(bridged)
        return refused

    def _register_group(self, members: list[Action], backing_off: list[Action], *, forced: bool) -> None:
        """Register the proper entries of an ordering group, in ascending rank and back to back.

        A member in ``backing_off`` gets no proper entry.  If it has an entry or a stand-in now, its stand-in is
        registered again with the group, so that it stays above the members of lower rank.
        """
        group = [action for action in members if action not in backing_off]
        if any(self._moved(action) for action in members):
            self.outcome.left.extend(group)
            return
        replaced = [action for action in group if action.act is Act.REPLACE]
        self._renew_stand_ins(replaced)
        bridged_before = len(self.outcome.bridged)
        refused = self._bridge(replaced, replaced)
        if refused:
            self._give_up(group, refused, self.outcome.bridged[bridged_before:])
            return
        if not forced and any(self._gate.touched_since_read(action.entry) for action in group):
            self._bridge(group)
            self.outcome.left.extend(group)
            return
        lines = {action.entry: encode_line(action.entry, _handler(action).registration) for action in group}
        for action in replaced:
            self._writer.control(action.entry, REMOVE)
        for action in backing_off:
            if not any(_handler(action) in self._desired.higher.get(name, ()) for name in lines):
                continue  # no entry of lower rank is written
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
            if error is None and action in backing_off:
                continue
            if error is None and number < max(too_low, default=0):
                self._writer.control(action.entry, REMOVE)  # it lies above the stand-in of a refused higher entry
                self.outcome.left.append(action)
            elif error is None:
                self._finish(action)
            else:
                refused_by = refusal(_handler(action).registration, error)
                self.outcome.failed.append((action, refused_by))

    def _finish(self, action: Action) -> None:
        """Record that the proper entry is registered, and remove its stand-in if that is a temporary one."""
        self.outcome.done.append(action)
        self.outcome.records[action.entry] = self._record(_handler(action))
        if action.entry not in self._desired.permanent:
            self._writer.control(stand_in_name(action.entry), REMOVE)

    def _serves_by_stand_in(self, action: Action, error: OSError) -> bool:
        """Return True if a stand-in serves for a refused entry; False for EEXIST: another program was faster."""
        return error.errno != errno.EEXIST and self._instance.inode(stand_in_name(action.entry)) is not None

    def _give_up(self, group: list[Action], refused: dict[str, WriteRefusedError], bridged: list[str]) -> None:
        """Replace no member of the group, since one was refused its stand-in; remove the stand-ins just registered.

        Otherwise members of lower rank would come to lie above that one.
        """
        for name in bridged:
            self._writer.control(stand_in_name(name), REMOVE)
            self.outcome.bridged.remove(name)
        for action in group:
            if error := refused.get(action.entry):
                self.outcome.failed.append((action, error))
            else:
                self.outcome.left.append(action)

    def _restore(self, action: Action) -> None:
        """Register a foreign entry as it was; without a stand-in, and without a record, so it stays foreign."""
        foreign = _handler(action)
        registration = foreign.registration
        # Of an interpreter that only a foreign entry names it is not known if its file system answers.
        opening = {0: registration.interpreter} if Flags.F in registration.flags else {}
        (error,) = self._writer.register([encode_line(foreign.name, registration)], opening)
        if error is not None and error.errno == errno.EEXIST:
            return  # another program was faster
        if error is not None:
            refused = refusal(registration, error)
            if refused.again is Again.NOW:  # it did not answer, and no look at the file follows
                refused.again = Again.LATER
            self.outcome.failed.append((action, refused))
            return
        if not foreign.enabled:
            self._writer.control(foreign.name, DISABLE)
        self.outcome.done.append(action)

    def _renew_stand_ins(self, actions: list[Action]) -> None:
        """Remove stand-ins that are disabled, or would replace an existing entry with another registration."""
        for action in actions:
            entry = self._instance.entry(stand_in_name(action.entry))
            if entry is None:
                continue
            wrong = action.act is Act.REPLACE and not equal(entry.registration, _handler(action).registration)
            if wrong or not entry.enabled:
                self._writer.control(entry.name, REMOVE)

    def _moved(self, action: Action) -> bool:
        """Return True if F would open another file than the one that was judged; note it in the outcome."""
        registration = _handler(action).registration
        moved = Flags.F in registration.flags and not self._unchanged(registration.interpreter)
        self.outcome.interpreters_moved |= moved
        return moved

    def _record(self, handler: Handler) -> Record:
        """Return the record of an entry that was just registered.

        It names the file that F opened only if the judged file is still at the path.
        """
        path = handler.registration.interpreter
        opened_file = None
        if Flags.F in handler.registration.flags:
            if self._unchanged(path):
                opened_file = self._desired.file_identities.get(path)
            else:
                self.outcome.interpreters_moved = True
        return Record(handler.registration, self._instance.inode(handler.name), opened_file)


def _handler(action: Action) -> Handler:
    if action.handler is None:
        raise TypeError("an action that registers an entry has no handler (model/plan.py)")
    return action.handler
