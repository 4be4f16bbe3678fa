"""When each name may be written: quiet, longest wait and back-off put together.

Remembers which drifts are open and what began them, counts repairs, and says when the next name falls due.  The time
(monotonic, in seconds) is handed in or asked of the clock at the moment of a decision.
"""

import time
from collections.abc import Collection

from binfmtd.daemon.contention import Contention
from binfmtd.daemon.heard import Heard
from binfmtd.daemon.hot_path import Reaction
from binfmtd.daemon.look import PassResult
from binfmtd.daemon.reporter import Reporter
from binfmtd.daemon.settling import Settling
from binfmtd.daemon.stand_in_budget import StandInBudget
from binfmtd.kernel.converge import Due
from binfmtd.model.desired import DesiredState
from binfmtd.model.drift import Act, Action, Drift
from binfmtd.model.plan import INSTANCE
from binfmtd.model.standin import is_stand_in

_MANY = 3  # handlers, and half of all: removed by name within `settle`, they count as a flush
_NEVER = float("-inf")
EVERYTHING = ""  # in Settling: the look at everything


class Pacing:
    """The clocks of all names."""

    def __init__(self, settle: float, report: Reporter) -> None:
        """``settle`` as in the config, in seconds."""
        self._settling = Settling(settle)
        self._contention = Contention()
        # Open drifts that are nobody's quarrel about the name: a flush began them, or we want otherwise now.
        self._free: set[str] = set()
        self._budget = StandInBudget()
        self._withheld: dict[str, float] = {}  # handlers whose stand-ins wait, and the back-off that they wait for
        self._disputed: set[str] = (
            set()
        )  # handlers whose stand-in, which another program registered, a pass may exchange
        self._desired: DesiredState | None = None  # at the last pass
        self._in_order: frozenset[str] = frozenset()  # what stood as declared: only that can be repaired
        self._report = report

    def use(self, settle: float) -> None:
        """Go on with another config: what it changes is no repair, but what had drifted before is."""
        self._settling.settle = settle
        self._in_order &= self._settling.pending()

    def forget(self) -> None:
        """Nothing can be written, or it is another instance: nothing is open until something else happens."""
        self._settling = Settling(self._settling.settle)

    def look_later(self, now: float) -> None:
        """Something may have changed: look at everything when it is quiet."""
        self._settling.stirred([EVERYTHING], now)
        self._settling.drifted(EVERYTHING, now)

    def noted(self, heard: Heard, reaction: Reaction, began: float, ended: float) -> None:
        """Take in what others did, until ``ended``, and what the hot path answered, which ``began`` before."""
        if heard.flushed:
            self._free |= reaction.found.keys() - {INSTANCE}
            if reaction.bridged:
                self._contend(INSTANCE, ended)
        for name in reaction.found:
            self._settling.drifted(name, began)
        for name, drift in reaction.ended.items():
            self._count(name, drift, ended)
        if heard.names or heard.everything:
            self._settling.stirred(heard.names, ended, everything=heard.everything)
            self.look_later(ended)

    def passed(self, result: PassResult, failed: Collection[str], *, at_once: bool, flushed: bool = False) -> None:
        """Take in what a pass left: which drifts ended, and which are open still; ``flushed``: while it was made."""
        now = time.monotonic()
        self._settling.ended(EVERYTHING)
        # What only moves along with another is as it should be.
        still_open = {a.entry: a.drift for a in result.look.plan.actions if a.entry not in failed and not a.dragged}
        # What was written, also if it did not help, and what was refused and is no other drift now: or we would try
        # for ever.
        written = {action.entry: action.drift for action in result.done}
        written |= {a.entry: a.drift for a, _ in result.failed if still_open.get(a.entry) is a.drift}
        restored = {action.entry for action in result.done if action.act is Act.RESTORE}
        if restored and not at_once:
            self._contend(INSTANCE, now)  # somebody flushed everything
        repairs = {action.entry for action in (*result.done, *(a for a, _ in result.failed)) if not action.dragged}
        counted = {name for name in (repairs & written.keys()) - restored if not is_stand_in(name)}
        desired = result.look.desired
        removed = {name for name in counted if written[name] is Drift.MISSING and not (at_once or name in self._free)}
        if len(removed) >= _MANY and 2 * len(removed) > len(desired.permanent or desired.handlers):
            self._free |= removed  # another program removes everything, name by name: that is as good as a flush
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
            # Another daemon that wants it puts it back: one of the two has to back off.
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
        repairing = self._in_order & still_open.keys()  # it is still to come
        self._in_order = repairing | (declared - still_open.keys() - result.look.plan.served_elsewhere.keys())

    def flushed_again(self) -> None:
        """What a pass registered is gone as a whole, and nobody has heard of it: it is that quarrel's next round."""
        self._contend(INSTANCE, time.monotonic())

    def open(self) -> frozenset[str]:
        """The drifts that are not settled yet."""
        return self._settling.pending()

    def drifting(self) -> frozenset[str]:
        """The names among them: without the look at everything."""
        return self._settling.pending() - {EVERYTHING}

    def contended(self) -> frozenset[str]:
        """The names that are backed off from."""
        return self._contention.contended()

    def due(self, name: str) -> Due:
        """Whether the proper entry of a name may be written now."""
        now = time.monotonic()
        if not self.may_switch(name):
            return Due.HELD
        if now < self._allowed_at(name):
            return Due.LATER
        return Due.FORCED if self._settling.forced(name, now) else Due.QUIET

    def anything_due(self, now: float) -> bool:
        """Whether a pass is called for."""
        return any(now >= self._calls_at(name) for name in self._settling.pending())

    def deadline(self) -> float:
        """When the next name falls due or a contention may be over; infinity if nothing is open."""
        return min([self._contention.end_at(), *(self._calls_at(name) for name in self._settling.pending())])

    def end_contentions(self, now: float) -> bool:
        """Forget quarrels that have been quiet long enough; whether there were any."""
        over = self._contention.over(now)
        for name in over:
            self._report.contention_ended(name)
        return bool(over)

    def may_switch(self, name: str) -> bool:
        """Whether the entry may be enabled, disabled or removed now: not while we back off."""
        return time.monotonic() >= self._contention.allowed_at(name)

    def may_bridge(self, name: str) -> bool:
        """Whether a stand-in may be registered now, or the instance switched on: within a budget of CPU time."""
        if time.monotonic() >= self._budget.free_at():
            return True
        self._withheld[name] = _NEVER
        return False

    def may_keep(self, name: str, drift: Drift, *, at_once: bool = False) -> bool:
        """Whether a pass may now write the permanent stand-in of the handler ``name``, which has this ``drift``.

        Another daemon that wants something else registers the stand-in differently, and the proper entry as well.  So
        an exchange of the one counts like a repair of the other, and a pass that backs off from the entry leaves the
        stand-in: or the two daemons would exchange stand-ins for ever.  ``at_once``: it is we who want something else.
        """
        disputed = drift is Drift.CHANGED and not at_once and name not in self._free
        if disputed and not self.may_switch(name):
            self._withheld[name] = self._contention.allowed_at(name)
            return False
        if not self.may_bridge(name):
            return False
        if disputed:
            self._disputed.add(name)
        return True

    def restore_at(self) -> float:
        """When a stand-in that was withheld may be registered; infinity if none was."""
        return max(self._budget.free_at(), min(self._withheld.values(), default=float("inf")))

    def take_withheld(self) -> set[str]:
        """The handlers whose stand-ins were withheld and may be registered now: they are looked for."""
        now = time.monotonic()
        taken = {name for name, allowed_at in self._withheld.items() if now >= allowed_at}
        for name in taken:
            del self._withheld[name]
        return taken

    def spent(self, cost: float) -> None:
        """Pay for stand-ins that were registered, in seconds of CPU time."""
        self._budget.spend(cost, time.monotonic())

    def allow(self, action: Action) -> bool:
        """Whether a pass may take this action up at all."""
        if action.act is Act.DISABLE and action.drift is Drift.UNWANTED:
            return True  # nothing runs any more: no back-off
        if action.entry == INSTANCE:
            return self.may_bridge(INSTANCE)
        return action.act in (Act.REGISTER, Act.REPLACE) or self.may_switch(action.entry)  # of these `due` tells

    def _allowed_at(self, name: str) -> float:
        return max(self._settling.due_at(name), self._contention.allowed_at(name))

    def _calls_at(self, name: str) -> float:
        return max(self._settling.calls_at(name), self._contention.allowed_at(name))

    def _count(self, name: str, drift: Drift, now: float, took: float | None = None, *, free: bool = False) -> None:
        if name in self._in_order or name == INSTANCE:
            self._report.repaired(name, drift, took)
        # Who keeps flushing may be met in its midst: what is gone then is part of that quarrel, and waits with it.
        if not free and not (drift is Drift.MISSING and INSTANCE in self._contention.contended()):
            self._contend(name, now)

    def _contend(self, name: str, now: float) -> None:
        if self._contention.repaired(name, now):
            self._report.contention_started(name)
