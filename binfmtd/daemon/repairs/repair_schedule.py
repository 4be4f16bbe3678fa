"""When each name may be written: when it is quiet or has waited long enough, and no backoff delays it.

Records in the state table what fast repairs and passes have found and done, counts repairs, and computes when the next
name is due.  The time (monotonic, in seconds) is an argument, or read from the clock at the moment of a decision.
"""

import time
from collections.abc import Collection, Mapping

from binfmtd.daemon.assessment import EndedDrift, ReconcileResult
from binfmtd.daemon.cpu_budget import CpuBudget
from binfmtd.daemon.entries.entry_state import Event, StateTable
from binfmtd.daemon.entries.fast_repair import FastRepairResult
from binfmtd.daemon.interpreters.interpreter_files import PATIENCE
from binfmtd.daemon.reporting.reporter import Reporter
from binfmtd.daemon.throttle import EventThrottle
from binfmtd.daemon.watches.events import PendingEvents
from binfmtd.kernel.write_gate import WritePermission
from binfmtd.model.desired import DesiredState
from binfmtd.model.drift import Act, Action, Drift
from binfmtd.model.ownership import stand_in_serves
from binfmtd.model.plan import INSTANCE
from binfmtd.model.stand_in import PREFIX, is_stand_in

# However often another program removes stand-ins, each is registered again at once while this budget lasts.  It pays
# for the writes: about 0.2 ms for one that is removed alone, about 1 ms for a flush of 33 handlers.
STAND_IN_SECONDS = 0.2  # of CPU time at once
STAND_IN_SHARE = 0.02  # of a core, in the long run: 100 removals or 20 flushes a second
# While another program keeps undoing a repair, it pays for the whole of each urgent repair.
CONTENDED_SECONDS = 0.03  # of CPU time at once
CONTENDED_SHARE = 0.0025  # of a core, in the long run
# However slow the processor is, no stand-in is withheld for longer.
LONGEST_WAIT = 3.0  # seconds
PASS_SECONDS = 0.03  # of CPU time of passes at once, while another program keeps undoing a repair
PASS_SHARE = 0.003  # of a core, in the long run: the passes then come later, and the stand-ins serve meanwhile
_MANY = 3  # handlers: if a pass repairs so many removals by name, and of more than half of all, that counts as a flush
_IN_PLACE = frozenset({Drift.DISABLED, Drift.SWITCHED_OFF})  # drifts without the removal of an entry
_NEVER = float("-inf")


class RepairSchedule:
    """Decides when each name may be written, by the states of all names and a budget for stand-ins."""

    def __init__(self, states: StateTable, settle: float, throttle: EventThrottle, report: Reporter) -> None:
        """Start with ``settle`` as in the config, in seconds."""
        self._states = states
        states.settle = settle
        self._budget = CpuBudget(STAND_IN_SECONDS, STAND_IN_SHARE, LONGEST_WAIT)
        self._pass_budget = CpuBudget(PASS_SECONDS, PASS_SHARE)
        self._disputed: set[str] = set()  # handlers whose stand-in is another program's; a pass may exchange it
        self._desired: DesiredState | None = None  # at the last pass
        self._flush_counted = False  # since the last pass, as a repair of the instance
        self._reloaded = False  # since the last pass, which does not count what another config changes
        self._throttle = throttle
        self._report = report

    def use(self, settle: float) -> None:
        """Use another config: what it changes counts as no repair, but what had drifted before does."""
        self._states.settle = settle
        self._reloaded = True

    def forget(self) -> None:
        """Forget all open drifts, since nothing can be written, or another instance is mounted."""
        self._states.apply_all(Event.FORGOTTEN)
        self._states.looked()

    def look_later(self, now: float) -> None:
        """Plan a look at everything for when it is quiet: something may have changed."""
        self._states.plan_look(now)

    # What was found and done

    def record_fast_repair(self, events: PendingEvents, reaction: FastRepairResult, began: float, ended: float) -> None:
        """Record the events of other programs, and what the fast repair did about them from ``began`` to ``ended``."""
        apply, serving = self._states.apply, {*reaction.bridged, *reaction.standing}
        for name in reaction.drifts:
            apply(name, Event.DRIFTED, began)
            if name in serving:
                apply(name, Event.STAND_IN_SERVES)
            elif not self._states.is_withheld(name):
                apply(name, Event.NO_STAND_IN)
            if events.flushed and name != INSTANCE:
                apply(name, Event.FLUSHED)
        if events.flushed and (reaction.bridged or reaction.drifts):  # stand-ins may be withheld
            self._contend(INSTANCE, ended)
            self._flush_counted = True
        for name, drift in reaction.fixed.items():
            self._count(name, drift, ended)
        if events.entries or events.any_entry:
            for name in events.entries:
                apply(name, Event.TOUCHED, ended)
            if events.any_entry:
                self._states.touch_all(ended)
            self.look_later(ended)

    def record_reconcile(self, result: ReconcileResult, *, at_once: bool, flushed: bool = False) -> None:
        """Record which drifts a pass ended, and which are still open; ``flushed``: a flush came while it was made."""
        now = time.monotonic()
        if self._reloaded:  # not earlier: what another program undid before this pass counts
            self._states.apply_all(Event.RELOADED)
            self._reloaded = False
        self._states.looked()
        failed = self._states.failed()
        for name, error in failed.items():
            self._states.apply(name, Event.REFUSED, error=error)
        # An entry that only moves along with another is as declared.
        still_open = {
            a.entry: a.drift for a in result.assessment.plan.actions if a.entry not in failed and not a.for_order_only
        }
        # Names that were written, also without success, and names that were refused and have the same drift still.
        # Otherwise we would try for ever.
        written = {action.entry: action.drift for action in result.done}
        written |= {a.entry: a.drift for a, _ in result.failed if still_open.get(a.entry) is a.drift}
        desired = result.assessment.desired
        changed = frozenset[str]() if self._desired is None else desired.changed_since(self._desired)
        self._desired = desired
        counted = self._count_repairs(result, written, changed, at_once=at_once, now=now)
        self._count_exchanges(result, counted | changed, at_once=at_once, now=now)
        self._end_drifts(result, written, still_open)
        self._keep_open(result, still_open, changed - written.keys(), flushed=flushed, now=now)

    def _count_repairs(
        self,
        result: ReconcileResult,
        written: Mapping[str, Drift],
        changed: Collection[str],
        *,
        at_once: bool,
        now: float,
    ) -> set[str]:
        """Count the repairs that the pass has made, and put into the result which drifts it has ended.

        Return the names that count.
        """
        restored = {action.entry for action in result.done if action.act is Act.RESTORE}
        if restored and not at_once:
            self._contend(INSTANCE, now)  # another program flushed everything
        known = {name for name in written if self._states[name].was_in_order}  # others cannot have been removed
        moved = {a.entry for a in (*result.done, *(a for a, _ in result.failed)) if not a.for_order_only}
        counted = {name for name in (moved & written.keys()) - restored if not is_stand_in(name)}
        exempt = {name for name in written if self._states[name].exempt}
        removed = {n for n in counted & known if written[n] is Drift.MISSING and not (at_once or n in exempt)}
        desired = result.assessment.desired
        if len(removed) >= _MANY and 2 * len(removed) > len(desired.permanent or desired.handlers):
            # Another program removes everything, name by name, or it flushes and the events wait for the throttle: both
            # count as a flush.  It then registers some of the names, as systemd-binfmt does: these were removed, too.
            exempt |= {name for name in counted & known if written[name] not in _IN_PLACE}
            self._contend(INSTANCE, now)
        flushed = {
            n for n in counted & known if written[n] is Drift.MISSING and self._states[n].flushed and not at_once
        }
        if flushed and not self._flush_counted and len(flushed) >= min(_MANY, len(desired.handlers)):
            self._contend(INSTANCE, now)  # a flush whose events were not read
        self._flush_counted = False
        exempt |= written.keys() & changed
        for name, drift in written.items():
            state = self._states[name]
            since = None if state.debounce is None else state.debounce.since
            took = None if since is None else now - since
            # A removal is no repair, also of an entry that was in order until its interpreter went.
            is_repair = name in counted and drift is not Drift.UNWANTED and (state.was_in_order or name == INSTANCE)
            result.ended[name] = EndedDrift(is_repair, took, state.served_after, state.facts)
            if name in counted:
                self._count(name, drift, now, took, free=(at_once and since is None) or name in exempt)
        return counted

    def _count_exchanges(self, result: ReconcileResult, counted: Collection[str], *, at_once: bool, now: float) -> None:
        """Count towards the backoff what another daemon, with another config, makes this one do again and again."""
        permanent = result.assessment.desired.permanent
        disputed, self._disputed = self._disputed.difference(counted), set()
        for name in disputed & permanent.keys():
            if permanent[name].name in result.kept:
                self._contend(name, now)
        for action in result.done:
            # Another daemon keeps this stand-in, and registers it again: one of the two has to back off.
            if action.act is Act.REMOVE and action.entry in result.others_stand_ins and not at_once:
                self._contend(action.entry, now)

    def _end_drifts(self, result: ReconcileResult, written: Collection[str], still_open: Mapping[str, Drift]) -> None:
        """Record the entries that are in order, and those that have no proper entry now."""
        apply, desired, plan = self._states.apply, result.assessment.desired, result.assessment.plan
        done = {action.entry for action in result.done}
        for name in written:  # what was written without success has drifted anew
            apply(name, Event.IN_ORDER if name in done else Event.FORGOTTEN, result.assessment.observed_at)
        for name in desired.by_name.keys() - still_open.keys() - self._states.failed().keys():
            if name in plan.served_elsewhere:
                apply(name, Event.SERVED_ELSEWHERE)
            elif name in plan.blocked:
                apply(name, Event.BLOCKED)
            else:
                apply(name, Event.IN_ORDER, result.assessment.observed_at)
        for name in [n for n, _ in self._states.items() if n not in desired.by_name and n not in still_open]:
            apply(name, Event.IN_ORDER if name == INSTANCE else Event.UNDECLARED, result.assessment.observed_at)
        self._states.prune(desired.by_name)

    def _keep_open(
        self,
        result: ReconcileResult,
        still_open: Mapping[str, Drift],
        changed: Collection[str],
        *,
        flushed: bool,
        now: float,
    ) -> None:
        """Record the drifts that the pass has left."""
        apply, assessment = self._states.apply, result.assessment
        for name in still_open:
            apply(name, Event.DRIFTED, now)
            if name in result.ended:  # it drifted once more while the pass was made: by the same cause, it seems
                state, ended = self._states[name], result.ended[name]
                state.facts, state.served_after = ended.facts, ended.served_after
            handler = assessment.desired.by_name.get(name)
            serves = handler is not None and stand_in_serves(handler, assessment.observed)
            apply(name, Event.STAND_IN_SERVES if serves else Event.NO_STAND_IN)
            if result.began >= self._allowed_at(name):
                # The end of a look calls for a pass by itself, so do not make one after the other until then.
                apply(name, Event.DEFERRED, now + PATIENCE if result.interpreters_moved else now)
            if name in changed:
                apply(name, Event.EXEMPTED)
            if flushed and name != INSTANCE:
                apply(name, Event.FLUSHED)

    def record_unseen_flush(self) -> None:
        """Count a flush of which no event was read: everything that a pass registered is gone again."""
        self._contend(INSTANCE, time.monotonic())
        self._flush_counted = True

    # What is open, and when it is due

    def is_settled(self) -> bool:
        """Return True if no drift is open and no look at everything is planned."""
        return not (self._states.open() or self._states.look_planned)

    def has_drifted(self, name: str) -> bool:
        """Return True if the name has an open drift."""
        return self._states[name].debounce is not None

    def drifting(self) -> frozenset[str]:
        """Return the names with an open drift."""
        return self._states.open()

    def contended(self) -> frozenset[str]:
        """Return the names that we back off from."""
        return self._states.contended()

    def permission(self, name: str) -> WritePermission:
        """Return the permission to write the proper entry of a name now."""
        now = time.monotonic()
        if not self.may_switch(name):
            return WritePermission.BACKOFF
        if now < self._allowed_at(name):
            return WritePermission.WAIT
        return WritePermission.NOW if self._states.is_overdue(name, now) else WritePermission.IF_UNTOUCHED

    def anything_due(self, now: float) -> bool:
        """Return True if a pass is due."""
        return now >= self._calls_at()

    def deadline(self) -> float:
        """Return when the next name is due or a backoff may end; infinity if nothing is open."""
        return min(self._calls_at(), self._states.next_calm_at())

    def _calls_at(self) -> float:
        """Return when the next pass is due; infinity if nothing is open and no look is planned."""
        at = self._states.calls_at(self._throttle.read_at)
        return max(at, self._pass_budget.free_at()) if self._states.contended() else at

    def spent_on_pass(self, cost: float) -> None:
        """Pay for a pass if another program keeps undoing a repair; ``cost`` in seconds of CPU time."""
        if self._states.contended():
            self._pass_budget.spend(cost, time.monotonic())

    def end_contentions(self, now: float) -> bool:
        """End the backoff of names that have been quiet for long enough; return True if there were any."""
        over = self._states.end_backoffs(now)
        for name in {_handler(name): name for name in over}.values():
            if not self._contended_names(name):
                self._report.contention_ended(name)
        return bool(over)

    def may_switch(self, name: str) -> bool:
        """Return True if the entry may be enabled, disabled or removed now: not while we back off from the name."""
        return time.monotonic() >= self._states.allowed_at(name)

    # Stand-ins

    def may_add_stand_in(self, name: str) -> bool:
        """Return True if a stand-in may be registered, or the instance switched on, within the budget of CPU time.

        Otherwise the name is kept for ``take_withheld``.
        """
        if time.monotonic() >= self._budget.free_at():
            return True
        self._states.withhold(name, _NEVER)
        return False

    def may_keep(self, name: str, drift: Drift, *, at_once: bool = False) -> bool:
        """Return True if a pass may now write the permanent stand-in of the handler ``name``, which has this ``drift``.

        Another daemon with another config registers the stand-in differently, and the proper entry as well.  So
        replacing its stand-in counts like a repair of the entry, and a pass that backs off from the entry leaves the
        stand-in: otherwise the two daemons would replace each other's for ever.  ``at_once``: our own config, or the
        instance, is another one.
        """
        state = self._states[name]
        disputed = drift.differs and not at_once and not state.exempt
        if disputed and not self.may_switch(name):
            self._states.withhold(name, self._states.allowed_at(name))
            return False
        if not self.may_add_stand_in(name):
            return False
        if disputed:
            self._disputed.add(name)
        return True

    def restore_at(self) -> float:
        """Return when a stand-in that was withheld may be registered; infinity if none was."""
        return max(self._budget.free_at(), self._states.withheld_until())

    def take_withheld(self) -> set[str]:
        """Return, and forget, the handlers whose stand-ins were withheld and may be registered now."""
        return self._states.take_withheld(time.monotonic())

    def spent(self, cost: float) -> None:
        """Pay for the writes of stand-ins; ``cost`` in seconds of CPU time."""
        now, contended = time.monotonic(), self._states.contended()
        limits = (CONTENDED_SECONDS, CONTENDED_SHARE) if contended else (STAND_IN_SECONDS, STAND_IN_SHARE)
        self._budget.use_limits(*limits, now)
        self._budget.spend(cost, now)

    def spent_on_repair(self, cost: float) -> None:
        """Pay for a whole urgent repair, whose writes are paid already, if another program keeps undoing a repair.

        Not for a look without a repair: the throttle limits these, and else nothing would be left for a repair.
        """
        if self._states.contended():
            self.spent(cost)

    def allow(self, action: Action) -> bool:
        """Return True if a pass may consider this action at all."""
        if action.act is Act.DISABLE and action.drift is Drift.UNWANTED:
            return True  # the entry stops every exec: no backoff
        if action.entry == INSTANCE:
            return self.may_add_stand_in(INSTANCE)
        # The permission decides about registrations.
        return action.act in (Act.REGISTER, Act.REPLACE) or self.may_switch(action.entry)

    def _allowed_at(self, name: str) -> float:
        return max(self._states.due_at(name), self._states.allowed_at(name))

    def _count(self, name: str, drift: Drift, now: float, took: float | None = None, *, free: bool = False) -> None:
        state = self._states[name]
        if drift is not Drift.UNWANTED and (state.was_in_order or name == INSTANCE):
            self._report.count_repair(name, drift, took, bridged=state.served_after is not None)
        # A pass may come in the middle of repeated flushes: what is missing then belongs to the instance's backoff.
        if not free and not (drift is Drift.MISSING and self._states.is_contended(INSTANCE)):
            self._contend(name, now)

    def _contend(self, name: str, now: float) -> None:
        if self._states.count_repair(name, now) and self._contended_names(name) == {name}:
            self._report.contention_started(name)

    def _contended_names(self, name: str) -> set[str]:
        """Return the names of the same handler, its own or its stand-in's, that we back off from."""
        return {each for each in self._states.contended() if _handler(each) == _handler(name)}


def _handler(name: str) -> str:
    """Return the name under which the log has a stand-in: its handler's."""
    return name.removeprefix(PREFIX)
