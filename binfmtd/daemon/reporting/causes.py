"""The cause of a drift, as far as it can be known: "replaced by systemd-binfmt.service".

Events do not name the process that caused them.  Three facts give hints:

* how the entry changed: by a write to its own file, or together with all entries;
* which entry has taken its place: some tools register entries that no other tool registers;
* when systemd last started systemd-binfmt.service.

Later findings refine the first one until the drift is settled.  For example, a flush that removed everything becomes a
replacement when systemd-binfmt has registered its own rules.

The loop asks for causes when programs run again, so this may take its time.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from binfmtd.catalog.tools import looks_like
from binfmtd.daemon.assessment import EndedDrift
from binfmtd.daemon.entries.entry_state import OPEN, StateTable
from binfmtd.daemon.entries.fast_repair import FastRepairResult
from binfmtd.daemon.watches.events import PendingEvents
from binfmtd.host.systemd import unit_started
from binfmtd.model.difference import difference
from binfmtd.model.drift import Action, Drift, DriftFacts
from binfmtd.model.entry import Entry
from binfmtd.model.handler import Registration

_ANOTHER = "another process"
_SYSTEMD_BINFMT = "systemd-binfmt.service"
_JUST_NOW = 2.0  # seconds: the unit stops, flushes, starts, flushes and registers in less

# The words for a drift that an event shows, followed by the process; None if an event does not show the process.
_DEEDS = {
    Drift.MISSING: "removed",
    Drift.CHANGED: "replaced",
    Drift.DISABLED: "disabled",
    Drift.UNWANTED: None,
    Drift.OUT_OF_ORDER: None,
    Drift.STALE_INTERPRETER: "registered again",
    Drift.SWITCHED_OFF: "switched off",
}
# The words for a drift that only a pass has found, or whose process an event does not show.
_CONDITIONS = {
    Drift.MISSING: "missing",
    Drift.CHANGED: "different from the config",
    Drift.DISABLED: "disabled",
    Drift.UNWANTED: "not allowed by the config",
    Drift.OUT_OF_ORDER: "overridden by a newer entry that takes the same files",
    Drift.STALE_INTERPRETER: "registered with an outdated or unknown interpreter file (flag F)",
    Drift.SWITCHED_OFF: "switched off",
}


class Cause(NamedTuple):
    """The cause of one entry's drift; ``words`` follow the entry's name in a sentence.

    Drifts with the same ``key`` have the same cause, and make one incident.
    """

    key: str
    words: str
    detail: str = ""  # how this entry differs

    @property
    def full(self) -> str:
        """The words and the detail, for a message about this entry alone."""
        return f"{self.words}: {self.detail}" if self.detail else self.words


class Causes:
    """The cause of each drift, from the facts that the state table has about it."""

    def __init__(self, states: StateTable) -> None:
        self._states = states
        self._unmounted = False  # since the last pass

    def instance_lost(self) -> None:
        """Take in that the instance has ended with its last mount: what the next pass finds missing ended with it."""
        self._unmounted = True

    def get(self, name: str) -> str | None:
        """Return why this name has drifted; None if it has not, or the cause is not known."""
        facts = self._states[name].facts
        return None if facts is None else _cause(facts, _ANOTHER).full

    def take_in(self, reaction: FastRepairResult, events: PendingEvents) -> dict[str, Cause]:
        """Return the cause of each drift that a fast repair found or ended, and keep the facts about the open ones.

        ``events`` are the events that it answered.
        """
        all_facts = {
            name: self._facts(name, drift, reaction, events)
            for name, drift in (reaction.fixed | reaction.drifts).items()
        }
        for name in reaction.drifts:
            state, facts = self._states[name], all_facts[name]
            before = state.facts if state.phase in OPEN else None
            if before is None:
                state.facts = facts
            elif before.drift is not facts.drift:
                state.facts = facts._replace(flushed=before.flushed or facts.flushed)
        return {name: _cause(facts, _ANOTHER) for name, facts in all_facts.items()}

    def refine(self, events: PendingEvents) -> None:
        """Refine the facts by events that came after the drift.

        The kernel raises the event of a write only when the write has had its effect.
        """
        for name in self._states.open():
            state = self._states[name]
            facts = state.facts
            if facts is not None and facts.drift is Drift.MISSING and not facts.by_name and not facts.flushed:
                by_name = name in events.entries_written
                state.facts = facts._replace(by_name=by_name, flushed=events.flushed and not by_name)

    def ended(
        self, actions: Iterable[Action], replaced: Mapping[str, Entry], ended: Mapping[str, EndedDrift]
    ) -> list[Cause]:
        """Return the cause for each of these actions of a pass.

        ``replaced`` are the entries that the pass replaced, ``ended`` the drifts that it has ended, by name.
        """
        unmounted, self._unmounted = self._unmounted, False
        known = [*(drift.facts for drift in ended.values()), *(state.facts for _, state in self._states.items())]
        agent = _agent() if any(facts is not None and facts.flushed for facts in known) else _ANOTHER
        causes = []
        for action in actions:
            facts = ended[action.entry].facts if action.entry in ended else None
            if facts is None:
                causes.append(_seen(action, unmounted=unmounted))
                continue
            if facts.drift is not action.drift:  # it drifted once more before it was quiet
                tool = _tool(replaced.get(action.entry))
                facts = facts._replace(drift=action.drift, tool=tool, detail=_detail(action))
            causes.append(_cause(facts, agent))
        return causes

    @staticmethod
    def _facts(name: str, drift: Drift, reaction: FastRepairResult, events: PendingEvents) -> DriftFacts:
        by_name = name in events.entries_written
        entry, wanted = reaction.actual.get(name), reaction.expected.get(name)
        detail = _difference(entry, wanted) if drift.differs else ""
        flushed = events.flushed and not by_name and drift not in (Drift.DISABLED, Drift.SWITCHED_OFF)
        return DriftFacts(drift, by_name, flushed, _tool(entry), detail)


def _tool(entry: Entry | None) -> str | None:
    return None if entry is None else looks_like(entry.registration)


def _difference(entry: Entry | None, wanted: Registration | None) -> str:
    if entry is None or wanted is None:
        return "it is enabled, but the config has enabled = false"
    return difference(entry.registration, wanted)


def _cause(facts: DriftFacts, agent: str) -> Cause:
    """Return the cause in words; ``agent`` is the process that flushed, if there was a flush."""
    deed = _DEEDS[facts.drift]
    if deed is None:
        words = _CONDITIONS[facts.drift]
        return Cause(words, words, facts.detail)
    if facts.drift is Drift.MISSING and facts.flushed:
        deed = "removed together with all other entries"
    by = agent if facts.flushed else _ANOTHER
    if facts.tool is not None:
        by += f" (probably {facts.tool})" if by == _ANOTHER else f" (probably with binfmt.d files of {facts.tool})"
    words = f"{deed} by {by}"
    return Cause("flushed" if facts.flushed else words, words, facts.detail)


def _seen(action: Action, *, unmounted: bool) -> Cause:
    """Return the cause of a drift that only a pass has found."""
    words = _CONDITIONS[action.drift]
    if unmounted and action.drift is Drift.MISSING:
        words = "removed by an unmount of binfmt_misc"
    return Cause(words, words, _detail(action))


def _detail(action: Action) -> str:
    """Return what the plan adds to the kind of drift."""
    plain = action.drift in (Drift.MISSING, Drift.DISABLED, Drift.SWITCHED_OFF)
    return "" if plain else action.reason


def _agent() -> str:
    """Return systemd-binfmt.service if systemd has just started it, else "another process"."""
    seconds = unit_started(_SYSTEMD_BINFMT)
    return _SYSTEMD_BINFMT if seconds is not None and 0 <= seconds <= _JUST_NOW else _ANOTHER
