"""When each name may be written: quiet, longest wait and back-off put together.

Remembers which drifts are open and what began them, counts repairs, and says when the next name falls due.  The time
(monotonic, in seconds) is handed in or asked of the clock at the moment of a decision.
"""

import time
from collections.abc import Iterable

from binfmtd.daemon.contention import Contention
from binfmtd.daemon.hot_path import Reaction
from binfmtd.daemon.reconcile import PassResult
from binfmtd.daemon.reporter import Reporter
from binfmtd.daemon.settling import Settling
from binfmtd.daemon.watch import Heard
from binfmtd.kernel.converge import Due
from binfmtd.model.drift import Act, Action
from binfmtd.model.standin import is_stand_in

EVERYTHING = ""  # in Settling: the look at everything
_NO_REPAIRS = frozenset({"start", "reload", "interpreter"})  # what these write is no repair


class Pacing:
    """The clocks of all names."""

    def __init__(self, settle: float, report: Reporter) -> None:
        """``settle`` as in the config, in seconds."""
        self._settling = Settling(settle)
        self._contention = Contention()
        self._flushed: set[str] = set()  # open drifts that a flush began: they count for nobody
        self._report = report

    def use(self, settle: float) -> None:
        """Go on with another config."""
        self._settling.settle = settle

    def forget(self) -> None:
        """Nothing can be written: nothing is open until something else happens."""
        self._settling = Settling(self._settling.settle)

    def noted(self, heard: Heard, reaction: Reaction, now: float) -> None:
        """Take in what others did and what the hot path answered."""
        if heard.names or heard.everything:
            self._settling.stirred([*heard.names, EVERYTHING], now, everything=heard.everything)
            self._settling.drifted(EVERYTHING, now)
        waiting = self._settling.pending()
        self._count_again(reaction.bridged, now)
        for name in reaction.found:
            if heard.flushed and name not in waiting:
                self._flushed.add(name)
            self._settling.drifted(name, now)
        for name in reaction.ended:
            self._count(name, now, flushed=heard.flushed)

    def passed(self, result: PassResult, failed: Iterable[str], trigger: str, *, at_once: bool) -> None:
        """Take in what a pass left: which drifts ended, and which are open still."""
        now = time.monotonic()
        self._settling.ended(EVERYTHING)
        still_open = {action.entry for action in result.look.plan.actions} - set(failed)
        # What was written, and what somebody was faster with; also if it did not help, or we would try for ever.
        written = {action.entry for action in result.done} | {action.entry for action, _ in result.failed} & still_open
        self._count_again(set(result.bridged) - written, now)
        for name in written:
            if (trigger not in _NO_REPAIRS or name in still_open) and not is_stand_in(name):
                self._count(name, now, flushed=at_once or name in self._flushed)
        for name in (self._settling.pending() - still_open) | written:
            self._settling.ended(name)
            self._flushed.discard(name)
        for name in still_open:
            self._settling.drifted(name, now)

    def open(self) -> frozenset[str]:
        """The drifts that are not settled yet."""
        return self._settling.pending()

    def contended(self) -> frozenset[str]:
        """The names that are backed off from."""
        return self._contention.contended()

    def due(self, name: str) -> Due:
        """Whether the proper entry of a name may be written now."""
        now = time.monotonic()
        if now < self._allowed_at(name):
            return Due.LATER
        return Due.FORCED if self._settling.forced(name, now) else Due.QUIET

    def anything_due(self, now: float) -> bool:
        """Whether a pass is called for."""
        return any(now >= self._allowed_at(name) for name in self._settling.pending())

    def deadline(self) -> float:
        """When the next name falls due or a contention may be over; infinity if nothing is open."""
        return min([self._contention.end_at(), *(self._allowed_at(name) for name in self._settling.pending())])

    def end_contentions(self, now: float) -> None:
        """Forget quarrels that have been quiet long enough."""
        for name in self._contention.over(now):
            self._report.contention_ended(name)

    def may_switch(self, name: str) -> bool:
        """Whether the entry may be enabled, disabled or removed now: not while we back off."""
        return time.monotonic() >= self._contention.allowed_at(name)

    def may_bridge(self, name: str) -> bool:
        """In contention a new drift gets its stand-in at once; one that was taken away again has to wait."""
        return self.may_switch(name) or name not in self._settling.pending()

    def allow(self, action: Action) -> bool:
        """Whether a pass may take this action up at all."""
        bridging = action.act in (Act.REGISTER, Act.REPLACE)
        return self.may_bridge(action.entry) if bridging else self.may_switch(action.entry)

    def _allowed_at(self, name: str) -> float:
        return max(self._settling.due_at(name), self._contention.allowed_at(name))

    def _count_again(self, bridged: Iterable[str], now: float) -> None:
        """A second stand-in for the same drift: somebody removed the first."""
        for name in self._settling.pending().intersection(bridged):
            self._count(name, now)

    def _count(self, name: str, now: float, *, flushed: bool = False) -> None:
        self._report.repaired(name)
        if not flushed and self._contention.repaired(name, now):
            self._report.contention_started(name)
