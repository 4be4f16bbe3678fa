"""The state of each entry that the daemon manages: one record per name, one table, one method for every transition.

The names are those of handlers, of their stand-ins, of foreign entries that the daemon writes, and ``status`` for the
instance as a whole.  In the phases EXPOSED, BRIDGED and SETTLING the entry has an open drift.

======================== ================ =========
in                       on               next
======================== ================ =========
any but FAILED           DRIFTED          EXPOSED
EXPOSED BRIDGED SETTLING STAND_IN_SERVES  BRIDGED
EXPOSED                  NO_STAND_IN      SETTLING
any but FAILED           IN_ORDER         CONVERGED
any but FAILED           SERVED_ELSEWHERE YIELDING
any but FAILED           BLOCKED          BLOCKED
any but FAILED           UNDECLARED       UNKNOWN
any                      REFUSED          FAILED
FAILED                   RETRIED          UNKNOWN
CONVERGED                RELOADED         UNKNOWN
EXPOSED BRIDGED SETTLING FORGOTTEN        UNKNOWN
======================== ================ =========

Other events leave the phase as it is.  After STAND_IN_REFUSED the drift stays open until the next pass, which applies
REFUSED.  The phases:

* UNKNOWN: not observed since the handler was declared, or since a refusal.
* CONVERGED: as declared.
* EXPOSED: neither the entry nor its stand-in serves; the stand-in is registered at once, or when the budget allows it.
* BRIDGED: the stand-in serves until the entry is written.
* SETTLING: no stand-in was registered for the drift; the entry is written when its name is quiet.
* YIELDING: a foreign entry serves.
* BLOCKED: a handler that belongs above it is paused or refused, so the entry cannot be written at its rank.
* FAILED: the kernel has refused the entry, and nothing has changed since.

``debounce`` says when an open drift is due.  ``backoff`` is independent of the phase: it delays the repairs of a name
that another process keeps undoing.

Pure: the caller passes the time (monotonic, in seconds).
"""

from collections.abc import Container, Iterable
from enum import Enum, auto
from typing import NamedTuple

from binfmtd.daemon.entries.backoff import Backoff
from binfmtd.daemon.entries.debounce import Debounce
from binfmtd.errors import WriteRefusedError
from binfmtd.model.desired import FileIdentity
from binfmtd.model.drift import DriftFacts
from binfmtd.model.handler import Registration
from binfmtd.model.plan import INSTANCE

NOT_READ = 0  # EntryState.inode of an entry that exists, but whose inode number was not read
_NEVER = float("-inf")
_INFINITY = float("inf")


class Phase(Enum):
    """The phase of one entry; the module's docstring describes each."""

    UNKNOWN = auto()
    CONVERGED = auto()
    EXPOSED = auto()
    BRIDGED = auto()
    SETTLING = auto()
    YIELDING = auto()
    BLOCKED = auto()
    FAILED = auto()


OPEN = frozenset({Phase.EXPOSED, Phase.BRIDGED, Phase.SETTLING})
_WITH_ERROR = OPEN | {Phase.FAILED}


class Event(Enum):
    """An event in the life of one entry."""

    DRIFTED = auto()  # it is not as declared
    STAND_IN_SERVES = auto()  # its stand-in is registered and enabled
    NO_STAND_IN = auto()  # it may have none now, or needs none
    TOUCHED = auto()  # another program raised an event on its name
    DEFERRED = auto()  # a pass was due, but could not write it
    FLUSHED = auto()  # a flush caused the open drift
    EXEMPTED = auto()  # our own config, or an interpreter that was replaced, caused the open drift
    IN_ORDER = auto()  # it is as declared, or was written
    SERVED_ELSEWHERE = auto()  # a foreign entry serves
    BLOCKED = auto()  # a handler that belongs above it cannot be written
    UNDECLARED = auto()  # the config does not declare it, or it has no interpreter
    REFUSED = auto()  # the kernel refused it, and would refuse the next try as well
    STAND_IN_REFUSED = auto()  # the kernel refused its stand-in in a fast repair
    RETRIED = auto()  # config, interpreter or mount have changed, or ``resync`` is over
    RELOADED = auto()  # another config is in force
    FORGOTTEN = auto()  # another instance is mounted, or nothing can be written


_NOT_FAILED = frozenset(Phase) - {Phase.FAILED}
_TO: dict[Event, tuple[Iterable[Phase], Phase] | None] = {
    Event.DRIFTED: (_NOT_FAILED, Phase.EXPOSED),
    Event.STAND_IN_SERVES: (OPEN, Phase.BRIDGED),
    Event.NO_STAND_IN: ({Phase.EXPOSED}, Phase.SETTLING),
    Event.TOUCHED: None,
    Event.DEFERRED: None,
    Event.FLUSHED: None,
    Event.EXEMPTED: None,
    Event.IN_ORDER: (_NOT_FAILED, Phase.CONVERGED),
    Event.SERVED_ELSEWHERE: (_NOT_FAILED, Phase.YIELDING),
    Event.BLOCKED: (_NOT_FAILED, Phase.BLOCKED),
    Event.UNDECLARED: (_NOT_FAILED, Phase.UNKNOWN),
    Event.REFUSED: (Phase, Phase.FAILED),
    Event.STAND_IN_REFUSED: None,
    Event.RETRIED: ({Phase.FAILED}, Phase.UNKNOWN),
    Event.RELOADED: ({Phase.CONVERGED}, Phase.UNKNOWN),
    Event.FORGOTTEN: (OPEN, Phase.UNKNOWN),
}
_ENDS = frozenset({Event.IN_ORDER, Event.SERVED_ELSEWHERE, Event.UNDECLARED, Event.FORGOTTEN})  # of a drift
TRANSITIONS = {(phase, event): to[1] for event, to in _TO.items() if to is not None for phase in to[0]}


class Expected(NamedTuple):
    """A registration that counts as ours if an entry with it appears: see daemon/entries/adoption.py."""

    registration: Registration
    until: float  # monotonic, in seconds; infinity: until the name has an entry
    opened_file: FileIdentity | None  # that F opened for our own; None if it is not certain


class EntryState:
    """All that is true of one name.  ``StateTable.apply`` alone changes the phase, and resets what a drift leaves."""

    __slots__ = (
        "backoff",
        "debounce",
        "error",
        "exempt",
        "expected",
        "facts",
        "flushed",
        "inode",
        "ours",
        "phase",
        "refusal_logged",
        "served_after",
        "unrecorded",
        "was_in_order",
    )

    def __init__(self) -> None:
        self.phase = Phase.UNKNOWN
        self.error: WriteRefusedError | None = None  # the refusal of the entry, while FAILED, or of its stand-in
        # While a drift is open:
        self.debounce: Debounce | None = None
        self.was_in_order = False  # before the drift: then ending it is a repair
        self.flushed = False  # a flush caused the drift
        self.exempt = False  # the drift does not count towards the backoff: a flush or a change of ours caused it
        self.facts: DriftFacts | None = None  # about its cause, for the log
        self.served_after: float | None = None  # seconds from the drift until a stand-in served, for the log
        # At any time:
        self.inode: int | None = None  # at the last look, or as noticed since then; None: the entry does not exist
        self.backoff: Backoff | None = None  # None: no repair was counted within the last minute
        self.refusal_logged: str | None = None  # the last refusal in the log, until a write succeeds
        self.expected: Expected | None = None
        self.ours = False  # a stand-in of this daemon, or one that was left over by an earlier one
        # The inode number of a stand-in with F that existed at the first look without a record: it is not adopted,
        # since F may have opened an older file.
        self.unrecorded: int | None = None

    @property
    def is_blank(self) -> bool:
        """True if nothing is known of the name that a new state would lack."""
        known = (self.backoff, self.refusal_logged, self.expected, self.inode, self.unrecorded)
        return self.phase is Phase.UNKNOWN and not self.ours and all(value is None for value in known)


class StateTable:
    """The states of all names.  A name that was never mentioned is UNKNOWN."""

    def __init__(self, settle: float = 0.0) -> None:
        self.settle = settle  # seconds without an event after which a name is quiet
        self._states: dict[str, EntryState] = {}
        # Indexes of the states, so that no turn of the loop has to search all of them:
        self._open: dict[str, Debounce] = {}
        self._contended: dict[str, Backoff] = {}
        # Apart from them, since a handler and the instance wait here whatever their phases:
        self._withheld: dict[str, float] = {}  # names whose stand-ins wait -> when they may be registered
        self._look: Debounce | None = None  # of the look at everything that is planned
        self._all_touched_at = _NEVER

    def __getitem__(self, name: str) -> EntryState:
        """Return the state of a name."""
        state = self._states.get(name)
        if state is None:
            state = self._states[name] = EntryState()
        return state

    def items(self) -> Iterable[tuple[str, EntryState]]:
        """Return the names with their states."""
        return self._states.items()

    def apply(self, name: str, event: Event, at: float = _INFINITY, error: WriteRefusedError | None = None) -> None:
        """Make the transition of a name.

        ``at``: when the event happened; for IN_ORDER, when the entry was read: a drift that began later stays open.
        ``error`` comes with REFUSED and STAND_IN_REFUSED.
        """
        if event is Event.TOUCHED and name not in self._open:
            return  # often the name of a foreign entry, which needs no state
        state = self[name]
        if event is Event.IN_ORDER and state.debounce is not None and state.debounce.since > at:
            return
        phase = state.phase = TRANSITIONS.get((state.phase, event), state.phase)
        if event in (Event.REFUSED, Event.STAND_IN_REFUSED):
            state.error = error
        elif event is Event.RETRIED or phase not in _WITH_ERROR:
            state.error = None
        if event in (Event.SERVED_ELSEWHERE, Event.UNDECLARED) or (event is Event.RELOADED and phase not in OPEN):
            state.was_in_order = False
        if phase not in OPEN:
            state.was_in_order |= phase is Phase.CONVERGED
            state.debounce, state.exempt, state.flushed = None, False, False
            self._open.pop(name, None)
            if event in _ENDS and phase is not Phase.FAILED:
                state.facts, state.served_after = None, None
        elif state.debounce is None:
            state.debounce = self._open[name] = Debounce(at)
        elif event is Event.TOUCHED:
            state.debounce.touched(at)
        elif event is Event.DEFERRED:
            state.debounce.deferred(at, self.settle)
        elif event in (Event.EXEMPTED, Event.FLUSHED):
            state.exempt = True
            state.flushed |= event is Event.FLUSHED

    def apply_all(self, event: Event) -> None:
        """Make the transition of every name."""
        for name in self._states:
            self.apply(name, event)

    def prune(self, known: Container[str]) -> None:
        """Drop the states of which nothing is known, except those of ``known`` names."""
        for name in [name for name, state in self._states.items() if state.is_blank and name not in known]:
            del self._states[name]

    # Open drifts

    def open(self) -> frozenset[str]:
        """Return the names with an open drift."""
        return frozenset(self._open)

    def phases(self) -> dict[str, Phase]:
        """Return the phases of the names with an open drift."""
        return {name: self._states[name].phase for name in self._open}

    def touch_all(self, now: float) -> None:
        """Record an event that concerns every name: another program wrote to ``register`` or ``status``."""
        self._all_touched_at = now

    def due_at(self, name: str) -> float:
        """Return the time from which the name may be written; without an open drift, when all is quiet."""
        debounce = self._open.get(name)
        if debounce is None:
            return self._all_touched_at + self.settle
        return debounce.due_at(self.settle, self._all_touched_at)

    def is_overdue(self, name: str, now: float) -> bool:
        """Return True if the longest wait is over: the name is then written even if it is not quiet."""
        debounce = self._open.get(name)
        return debounce is not None and debounce.is_over(now)

    def calls_at(self, unread_until: float = _NEVER) -> float:
        """Return when the next pass is due; infinity if nothing is open and no look is planned.

        Until ``unread_until`` no events are read.
        """
        earliest = _INFINITY
        if self._look is not None:
            earliest = max(self._look.calls_at(self.settle, self._all_touched_at), self._backoff_ends_at(INSTANCE))
        for name, debounce in self._open.items():
            called_at = debounce.calls_at(self.settle, self._all_touched_at, unread_until)
            earliest = min(earliest, max(called_at, self.allowed_at(name)))
        return earliest

    # The look at everything

    @property
    def look_planned(self) -> bool:
        """True if a pass over all entries is planned for when everything is quiet."""
        return self._look is not None

    def plan_look(self, now: float) -> None:
        """Plan a pass over all entries for when everything is quiet."""
        if self._look is None:
            self._look = Debounce(now)
        else:
            self._look.touched(now)

    def looked(self) -> None:
        """Record that a pass has read the entries."""
        self._look = None

    # Backoff

    def count_repair(self, name: str, now: float) -> bool:
        """Count a repair towards the name's backoff; return True if a backoff begins with it."""
        state = self[name]
        if state.backoff is None:
            state.backoff = Backoff(of_all=name == INSTANCE)
        begins = state.backoff.count_repair(now)
        if begins:
            self._contended[name] = state.backoff
        return begins

    def allowed_at(self, name: str) -> float:
        """Return the time from which the name may be repaired again; minus infinity without a backoff."""
        return max(self._backoff_ends_at(name), self._backoff_ends_at(INSTANCE)) if self._contended else _NEVER

    def _backoff_ends_at(self, name: str) -> float:
        backoff = self._contended.get(name)
        return _NEVER if backoff is None else backoff.allowed_at()

    def is_contended(self, name: str) -> bool:
        """Return True if the daemon backs off from the name."""
        return name in self._contended

    def contended(self) -> frozenset[str]:
        """Return the names that the daemon backs off from."""
        return frozenset(self._contended)

    def next_calm_at(self) -> float:
        """Return when the next backoff may end; infinity if there is none."""
        return min((backoff.quiet_at() for backoff in self._contended.values()), default=_INFINITY)

    def end_backoffs(self, now: float) -> list[str]:
        """Forget the repairs of names without one in the last minute; return the names whose backoff ends."""
        for state in self._states.values():
            if state.backoff is not None and now >= state.backoff.quiet_at():
                state.backoff = None
        ended = [name for name in self._contended if self._states[name].backoff is None]
        for name in ended:
            del self._contended[name]
        return ended

    # Withheld stand-ins

    def withhold(self, name: str, until: float) -> None:
        """Record that the handler's stand-in may not be registered before ``until``."""
        self._withheld[name] = until

    def is_withheld(self, name: str) -> bool:
        """Return True if the handler's stand-in waits."""
        return name in self._withheld

    def withheld_until(self) -> float:
        """Return when the next stand-in that was withheld may be registered; infinity if none was."""
        return min(self._withheld.values(), default=_INFINITY)

    def take_withheld(self, now: float) -> set[str]:
        """Return, and forget, the handlers whose stand-ins were withheld and may be registered now."""
        taken = {name for name, until in self._withheld.items() if now >= until}
        for name in taken:
            del self._withheld[name]
        return taken

    # Refusals

    def failed(self) -> dict[str, WriteRefusedError]:
        """Return the refusals of the names that are not tried again before something changes."""
        return {name: state.error for name, state in self._states.items() if state.error is not None}
