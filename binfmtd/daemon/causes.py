"""What is known of why something drifted: what changed from what to what, who may have done it, and when.

Asked when programs run again, so it may take its time.
"""

from collections.abc import Collection, Iterable

from binfmtd.catalog.tools import looks_like
from binfmtd.daemon.heard import Heard
from binfmtd.daemon.hot_path import Reaction
from binfmtd.kernel.service_manager import unit_started
from binfmtd.model.difference import difference
from binfmtd.model.drift import Action, Drift
from binfmtd.model.entry import Entry
from binfmtd.model.handler import Registration

FLUSHED = "everything was flushed at once"
_REMOVED = "somebody removed it"
_GONE = "it is gone"  # the event that says how may be still to come
_SYSTEMD_BINFMT = "systemd-binfmt.service"
_JUST_NOW = 2.0  # seconds: it stops, flushes, starts, flushes and registers in less

_WORDS = {
    Drift.UNWANTED: "the config does not want it",
    Drift.OUT_OF_ORDER: "an entry of lower rank was registered anew",
    Drift.SWITCHED_OFF: "somebody wrote 0 to status",
}


class Causes:
    """Why what is not settled has drifted, by name."""

    def __init__(self) -> None:
        self._open: dict[str, str] = {}

    def get(self, name: str) -> str | None:
        """Why it drifted; None if it did not, or nobody knows."""
        return self._open.get(name)

    def take_in(self, reaction: Reaction, heard: Heard, pending: Collection[str]) -> dict[str, str]:
        """Why, for each name of which something was found; ``heard`` led to it.  ``pending`` had drifted before."""
        why = {
            name: _cause(name, drift, reaction, by_name=name in heard.written, flushed=heard.flushed)
            for name, drift in (reaction.ended | reaction.found).items()
        }
        self._open |= {name: why[name] for name in reaction.found if name not in pending}
        return why

    def learn(self, heard: Heard) -> None:
        """Take in what came after the drift: the kernel tells of a write when what it does is done."""
        for name, why in self._open.items():
            if why == _GONE and (heard.flushed or name in heard.written):
                self._open[name] = _REMOVED if name in heard.written else FLUSHED

    def settled(self, actions: Iterable[Action], still_open: Collection[str]) -> list[str]:
        """Why each of these was done, now that it is quiet; what is not ``still_open`` is forgotten."""
        flushed = _with_unit() if FLUSHED in self._open.values() else FLUSHED
        reasons = []
        for action in actions:
            why = self._open.get(action.entry, action.reason) if action.drift is Drift.MISSING else action.reason
            reasons.append(flushed if why == FLUSHED else why)
        self._open = {name: why for name, why in self._open.items() if name in still_open}
        return reasons


def _cause(name: str, drift: Drift, reaction: Reaction, *, by_name: bool, flushed: bool) -> str:
    if drift is Drift.MISSING:
        return _REMOVED if by_name else FLUSHED if flushed else _GONE
    entry = reaction.instead.get(name)
    if drift is Drift.DISABLED:
        return "somebody disabled it"
    if drift is Drift.STALE_INTERPRETER:
        return "somebody registered the same" + _whose(entry)
    if drift is Drift.CHANGED:
        return _changed(entry, reaction.wanted.get(name))
    return _WORDS[drift]


def _changed(entry: Entry | None, wanted: Registration | None) -> str:
    if entry is None or wanted is None:
        return "it is enabled, and the config says enabled = false"
    return difference(entry.registration, wanted) + _whose(entry)


def _whose(entry: Entry | None) -> str:
    tool = None if entry is None else looks_like(entry.registration)
    return f" (it looks like {tool})" if tool else ""


def _with_unit() -> str:
    """What a flush may have to do with systemd-binfmt."""
    seconds = unit_started(_SYSTEMD_BINFMT)
    if seconds is None or not 0 <= seconds <= _JUST_NOW:
        return FLUSHED
    return f"{FLUSHED}: {_SYSTEMD_BINFMT} was started {seconds * 1000:.0f} ms ago"
