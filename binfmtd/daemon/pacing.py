"""The pacing of writes: a name is written when it is quiet or has waited long enough, and no backoff delays it.

Keeps the open drifts and what began them, counts repairs, and computes when the next name is due.  The time (monotonic,
in seconds) is an argument, or read from the clock at the moment of a decision.
"""

import time
from collections.abc import Collection

from binfmtd.daemon.backoff import Backoff
from binfmtd.daemon.events import PendingEvents
from binfmtd.daemon.fast_repair import FastRepairResult
from binfmtd.daemon.look import ReconcileResult
from binfmtd.daemon.reporter import Reporter
from binfmtd.daemon.settling import Settling
from binfmtd.daemon.stand_in_budget import StandInBudget
from binfmtd.kernel.executor import WritePermission
from binfmtd.model.desired import DesiredState
from binfmtd.model.drift import Act, Action, Drift
from binfmtd.model.plan import INSTANCE
from binfmtd.model.standin import is_stand_in

_MANY = 3  # handlers: if a pass repairs so many removals by name, and of more than half of all, that counts as a flush
_NEVER = float("-inf")
EVERYTHING = ""  # in Settling: the look at everything


class Pacing:
    """The clocks, backoffs and budgets of all names."""

    def __init__(self, settle: float, report: Reporter) -> None:
        """Start with ``settle`` as in the config, in seconds."""
        self._settling = Settling(settle)
        self._backoff = Backoff()
        # Open drifts that do not count towards the backoff of their names: a flush or our own new config caused them.
        self._free: set[str] = set()
        self._budget = StandInBudget()
        self._withheld: dict[str, float] = {}  # handlers whose stand-ins wait -> when their backoff allows them
        self._disputed: set[str] = set()  # handlers whose stand-in is another program's; a pass may exchange it
        self._desired: DesiredState | None = None  # at the last pass
        self._in_order: frozenset[str] = frozenset()  # names that were as declared: only these can be repaired
        self._report = report

    def use(self, settle: float) -> None:
        """Use another config: what it changes counts as no repair, but what had drifted before does."""
        self._settling.settle = settle
        self._in_order = self._in_order & self._settling.pending()

    def forget(self) -> None:
        """Forget all open drifts, since nothing can be written, or another instance is mounted."""
        self._settling = Settling(self._settling.settle)

    def look_later(self, now: float) -> None:
        """Plan a look at everything for when it is quiet: something may have changed."""
        self._settling.record_touch([EVERYTHING], now)
        self._settling.drifted(EVERYTHING, now)

    def record_fast_repair(self, events: PendingEvents, reaction: FastRepairResult, began: float, ended: float) -> None:
        """Record the events of other programs, and what the fast repair did about them from ``began`` to ``ended``."""
        if events.flushed:
            self._free |= reaction.found.keys() - {INSTANCE}
            if reaction.bridged:
                self._contend(INSTANCE, ended)
        for name in reaction.found:
            self._settling.drifted(name, began)
        for name, drift in reaction.ended.items():
            self._count(name, drift, ended)
        if events.names or events.everything:
            self._settling.record_touch(events.names, ended, everything=events.everything)
            self.look_later(ended)

    def passed(self, result: ReconcileResult, failed: Collection[str], *, at_once: bool, flushed: bool = False) -> None:
        """Record which drifts a pass ended, and which are still open; ``flushed``: a flush came while it was made."""
        now = time.monotonic()
        self._settling.ended(EVERYTHING)
        # An entry that only moves along with another is as declared.
        still_open = {
            a.entry: a.drift for a in result.look.plan.actions if a.entry not in failed and not a.for_order_only
        }
        # Names that were written, also without success, and names that were refused and have the same drift still.
        # Otherwise we would try for ever.
        written = {action.entry: action.drift for action in result.done}
        written |= {a.entry: a.drift for a, _ in result.failed if still_open.get(a.entry) is a.drift}
        restored = {action.entry for action in result.done if action.act is Act.RESTORE}
        if restored and not at_once:
            self._contend(INSTANCE, now)  # another program flushed everything
        repairs = {
            action.entry for action in (*result.done, *(a for a, _ in result.failed)) if not action.for_order_only
        }
        counted = {name for name in (repairs & written.keys()) - restored if not is_stand_in(name)}
        desired = result.look.desired
        removed = {name for name in counted if written[name] is Drift.MISSING and not (at_once or name in self._free)}
        if len(removed) >= _MANY and 2 * len(removed) > len(desired.permanent or desired.handlers):
            self._free |= removed  # another program removes everything, name by name: that counts as a flush
            self._contend(INSTANCE, now)
        changed = frozenset[str]() if self._desired is None else desired.changed_since(self._desired)
        self._free |= changed & (written.keys() | still_open.keys())
        self._desired = desired
        for name, drift in written.items():
            if name in counted:
                since = self._settling.since(name)
                took = None if since is None else now - since
                self._count(name, drift, now, took, free=(at_once and since is None) or name in self._free)
        disputed, self._disputed = self._disputed - counted - changed, set()
        for name in disputed & desired.permanent.keys():
            if desired.permanent[name].name in result.kept:
                self._contend(name, now)
        for action in result.done:
            # Another daemon may keep this stand-in and register it again: one of the two has to back off.
            if action.act is Act.REMOVE and is_stand_in(action.entry) and not at_once:
                self._contend(action.entry, now)
        for name in (self._settling.pending() - still_open.keys()) | written.keys():
            self._settling.ended(name)
            self._free.discard(name)
        for name in still_open:
            self._settling.drifted(name, now)
            if result.began >= self._allowed_at(name):
                self._settling.left(name, now)
        if flushed:
            self._free |= still_open.keys() - {INSTANCE}
        declared = desired.by_name.keys()
        repairing = self._in_order & still_open.keys()  # their repairs are still to come
        served = result.look.plan.served_elsewhere.keys()
        self._in_order = frozenset(repairing | (declared - still_open.keys() - served))

    def record_unseen_flush(self) -> None:
        """Count a flush of which no event was read: everything that a pass registered is gone again."""
        self._contend(INSTANCE, time.monotonic())

    def open(self) -> frozenset[str]:
        """Return the names with an open drift; EVERYTHING if a look at everything is planned."""
        return self._settling.pending()

    def drifting(self) -> frozenset[str]:
        """Return the names with an open drift, without EVERYTHING."""
        return self._settling.pending() - {EVERYTHING}

    def contended(self) -> frozenset[str]:
        """Return the names that we back off from."""
        return self._backoff.contended()

    def due(self, name: str) -> WritePermission:
        """Return the permission to write the proper entry of a name now."""
        now = time.monotonic()
        if not self.may_switch(name):
            return WritePermission.BACKOFF
        if now < self._allowed_at(name):
            return WritePermission.WAIT
        return WritePermission.NOW if self._settling.forced(name, now) else WritePermission.IF_UNTOUCHED

    def anything_due(self, now: float) -> bool:
        """Return True if a pass is due."""
        return any(now >= self._calls_at(name) for name in self._settling.pending())

    def deadline(self) -> float:
        """Return when the next name is due or a backoff may end; infinity if nothing is open."""
        return min([self._backoff.end_at(), *(self._calls_at(name) for name in self._settling.pending())])

    def end_contentions(self, now: float) -> bool:
        """End the backoff of names that have been quiet for long enough; return True if there were any."""
        over = self._backoff.over(now)
        for name in over:
            self._report.contention_ended(name)
        return bool(over)

    def may_switch(self, name: str) -> bool:
        """Return True if the entry may be enabled, disabled or removed now: not while we back off from the name."""
        return time.monotonic() >= self._backoff.allowed_at(name)

    def may_add_stand_in(self, name: str) -> bool:
        """Return True if a stand-in may be registered, or the instance switched on, within the budget of CPU time.

        Otherwise the name is kept for ``take_withheld``.
        """
        if time.monotonic() >= self._budget.free_at():
            return True
        self._withheld[name] = _NEVER
        return False

    def may_keep(self, name: str, drift: Drift, *, at_once: bool = False) -> bool:
        """Return True if a pass may now write the permanent stand-in of the handler ``name``, which has this ``drift``.

        Another daemon with another config registers the stand-in differently, and the proper entry as well.  So an
        exchange of the stand-in counts like a repair of the entry, and a pass that backs off from the entry leaves the
        stand-in: otherwise the two daemons would exchange stand-ins for ever.  ``at_once``: our own config, or the
        instance, is another one.
        """
        disputed = drift is Drift.CHANGED and not at_once and name not in self._free
        if disputed and not self.may_switch(name):
            self._withheld[name] = self._backoff.allowed_at(name)
            return False
        if not self.may_add_stand_in(name):
            return False
        if disputed:
            self._disputed.add(name)
        return True

    def restore_at(self) -> float:
        """Return when a stand-in that was withheld may be registered; infinity if none was."""
        return max(self._budget.free_at(), min(self._withheld.values(), default=float("inf")))

    def take_withheld(self) -> set[str]:
        """Return, and forget, the handlers whose stand-ins were withheld and may be registered now."""
        now = time.monotonic()
        taken = {name for name, allowed_at in self._withheld.items() if now >= allowed_at}
        for name in taken:
            del self._withheld[name]
        return taken

    def spent(self, cost: float) -> None:
        """Pay for stand-ins that were registered; ``cost`` in seconds of CPU time."""
        self._budget.spend(cost, time.monotonic())

    def allow(self, action: Action) -> bool:
        """Return True if a pass may consider this action at all."""
        if action.act is Act.DISABLE and action.drift is Drift.UNWANTED:
            return True  # the entry stops every exec: no backoff
        if action.entry == INSTANCE:
            return self.may_add_stand_in(INSTANCE)
        return action.act in (Act.REGISTER, Act.REPLACE) or self.may_switch(action.entry)  # for these `due` decides

    def _allowed_at(self, name: str) -> float:
        return max(self._settling.due_at(name), self._backoff.allowed_at(name))

    def _calls_at(self, name: str) -> float:
        return max(self._settling.calls_at(name), self._backoff.allowed_at(name))

    def _count(self, name: str, drift: Drift, now: float, took: float | None = None, *, free: bool = False) -> None:
        if name in self._in_order or name == INSTANCE:
            self._report.repaired(name, drift, took)
        # A pass may come in the middle of repeated flushes: what is missing then belongs to the instance's backoff.
        if not free and not (drift is Drift.MISSING and INSTANCE in self._backoff.contended()):
            self._contend(name, now)

    def _contend(self, name: str, now: float) -> None:
        if self._backoff.repaired(name, now):
            self._report.contention_started(name)
