"""The cause of a drift, as far as it can be known: "replaced by systemd-binfmt.service".

Events do not name the process that caused them.  Three facts give hints:

* how the entry changed: by a write to its own file, or together with all entries;
* which entry has taken its place: some tools register entries that no other tool registers;
* when systemd last started systemd-binfmt.service.

Later findings refine the first one until the drift is settled.  For example, a flush that removed everything becomes a
replacement when systemd-binfmt has registered its own rules.

The loop asks for causes when programs run again, so this may take its time.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from binfmtd.catalog.tools import looks_like
from binfmtd.daemon.events import PendingEvents
from binfmtd.daemon.fast_repair import FastRepairResult
from binfmtd.host.systemd import unit_started
from binfmtd.model.difference import difference
from binfmtd.model.drift import Action, Drift
from binfmtd.model.entry import Entry
from binfmtd.model.handler import Registration

_ANOTHER = "another process"
_SYSTEMD_BINFMT = "systemd-binfmt.service"
_JUST_NOW = 2.0  # seconds: the unit stops, flushes, starts, flushes and registers in less

_DEEDS = {
    Drift.MISSING: "removed",
    Drift.CHANGED: "replaced",
    Drift.DISABLED: "disabled",
    Drift.STALE_INTERPRETER: "registered again",
    Drift.SWITCHED_OFF: "switched off",
}
# Drifts that a pass finds: no event hints at a process.
_FOUND = {
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


class _Found(NamedTuple):
    """The findings so far about one open drift."""

    drift: Drift
    by_name: bool  # a process wrote to its own file
    flushed: bool
    tool: str | None = None  # the tool that registers entries like the one in its place
    detail: str = ""


class Causes:
    """The findings about each drift that is not settled, by name."""

    def __init__(self) -> None:
        self._open: dict[str, _Found] = {}

    def get(self, name: str) -> str | None:
        """Return why this name has drifted; None if it has not, or the cause is not known."""
        found = self._open.get(name)
        return None if found is None else _cause(found, _ANOTHER).full

    def take_in(self, reaction: FastRepairResult, events: PendingEvents, pending: Collection[str]) -> dict[str, Cause]:
        """Return the cause of each drift that a fast repair found or ended, and keep those of the open ones.

        ``events`` are the events that it answered; the ``pending`` names had drifted before.
        """
        found = {
            name: self._found(name, drift, reaction, events)
            for name, drift in (reaction.ended | reaction.found).items()
        }
        for name in reaction.found:
            before = self._open.get(name)
            if name not in pending or before is None:
                self._open[name] = found[name]
            elif before.drift is not found[name].drift:
                self._open[name] = found[name]._replace(flushed=before.flushed or found[name].flushed)
        return {name: _cause(each, _ANOTHER) for name, each in found.items()}

    def learn(self, events: PendingEvents) -> None:
        """Refine the findings by events that came after the drift.

        The kernel raises the event of a write only when the write has had its effect.
        """
        for name, found in self._open.items():
            if found.drift is Drift.MISSING and not found.by_name and not found.flushed:
                by_name = name in events.written
                self._open[name] = found._replace(by_name=by_name, flushed=events.flushed and not by_name)

    def settled(
        self, actions: Iterable[Action], replaced: Mapping[str, Entry], still_open: Collection[str]
    ) -> list[Cause]:
        """Return the cause for each of these actions of a pass; forget the drifts that are not ``still_open``.

        ``replaced`` are the entries that the pass replaced, by name.
        """
        agent = _agent() if any(found.flushed for found in self._open.values()) else _ANOTHER
        causes = []
        for action in actions:
            found = self._open.get(action.entry)
            if found is None:
                causes.append(_seen(action))
                continue
            if found.drift is not action.drift:  # it drifted once more before it was quiet
                tool = _tool(replaced.get(action.entry))
                found = found._replace(drift=action.drift, tool=tool, detail=_detail(action))
            causes.append(_cause(found, agent))
        self._open = {name: found for name, found in self._open.items() if name in still_open}
        return causes

    @staticmethod
    def _found(name: str, drift: Drift, reaction: FastRepairResult, events: PendingEvents) -> _Found:
        by_name = name in events.written
        entry, wanted = reaction.instead.get(name), reaction.wanted.get(name)
        detail = _difference(entry, wanted) if drift is Drift.CHANGED else ""
        flushed = events.flushed and not by_name and drift not in (Drift.DISABLED, Drift.SWITCHED_OFF)
        return _Found(drift, by_name, flushed, _tool(entry), detail)


def _tool(entry: Entry | None) -> str | None:
    return None if entry is None else looks_like(entry.registration)


def _difference(entry: Entry | None, wanted: Registration | None) -> str:
    if entry is None or wanted is None:
        return "it is enabled, but the config has enabled = false"
    return difference(entry.registration, wanted)


def _cause(found: _Found, agent: str) -> Cause:
    """Return the cause in words; ``agent`` is the process that flushed, if there was a flush."""
    deed = _DEEDS.get(found.drift)
    if deed is None:
        return Cause(found.drift.value, _FOUND[found.drift], found.detail)
    if found.drift is Drift.MISSING and found.flushed:
        deed = "removed together with all other entries"
    by = agent if found.flushed else _ANOTHER
    if found.tool is not None:
        by += f" (probably {found.tool})" if by == _ANOTHER else f" (probably with binfmt.d files of {found.tool})"
    words = f"{deed} by {by}"
    return Cause("flushed" if found.flushed else words, words, found.detail)


def _seen(action: Action) -> Cause:
    """Return the cause of a drift that only a pass has found."""
    words = _FOUND[action.drift]
    return Cause(words, words, _detail(action))


def _detail(action: Action) -> str:
    """Return what the plan adds to the kind of drift."""
    plain = action.drift in (Drift.MISSING, Drift.DISABLED, Drift.SWITCHED_OFF)
    return "" if plain else action.reason


def _agent() -> str:
    """Return systemd-binfmt.service if systemd has just started it, else "another process"."""
    seconds = unit_started(_SYSTEMD_BINFMT)
    return _SYSTEMD_BINFMT if seconds is not None and 0 <= seconds <= _JUST_NOW else _ANOTHER
