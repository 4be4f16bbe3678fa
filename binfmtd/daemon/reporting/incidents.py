"""One line of the log for everything that one cause brought about: an incident.

systemd-binfmt and package managers change entries one after the other, and several passes repair them.  So an incident
stays open until nothing was added to it for a second, ten seconds at most.  The status shows it at once, the log when
it is closed: "31 entries replaced by systemd-binfmt.service, repaired in 3 ms".  An urgent incident is closed at once;
those of the same event that follow within ten seconds stay open as usual.

Pure but for the wall clock: the caller passes monotonic time, in seconds.
"""

from collections.abc import Collection
from typing import Any

from binfmtd.daemon.reporting.status_file import now as on_the_wall
from binfmtd.model.drift import Drift
from binfmtd.report.durations import milliseconds
from binfmtd.report.happened import REPAIRED, happened

QUIET = 1.0
LONGEST = 10.0
MOST_NAMES = 100  # in one row
_MOST_NAMES = 5  # in a line of the log


class Incident:
    """The entries that one cause changed, with what the log and the status show of it."""

    def __init__(self, event: str, level: str, now: float) -> None:
        self.event = event
        self.level = level
        self.words = ""
        self.detail = ""  # what differs in the entry that was added last
        self.names: dict[str, int] = {}  # entry -> how often
        self.drifts: dict[str, None] = {}
        self.pass_id: str | None = None
        self.served: float | None = None  # seconds until programs ran again
        self.took: float | None = None  # seconds until everything was in order
        self.first_at = self.last_at = on_the_wall()
        self.began = self.last = now
        self.closed_after = QUIET  # seconds without anything new

    def add(self, names: Collection[str], words: str, detail: str, drift: str | None, now: float) -> None:
        """Add entries that the same cause changed."""
        # After a flush entries are missing, and then other entries may take their place: keep the words about those.
        if not self.words or drift != Drift.MISSING.value:
            self.words, self.detail = words, detail
        for name in names:
            self.names[name] = self.names.get(name, 0) + 1
        if drift is not None:
            self.drifts[drift] = None
        self.last, self.last_at = now, on_the_wall()

    def lasted(self, served: float, took: float) -> None:
        """Take in how long a repair took, in seconds: the longest counts."""
        self.served = max(served, self.served or 0.0)
        self.took = max(took, self.took or 0.0)

    @property
    def due_at(self) -> float:
        """The time at which it is closed if nothing is added (monotonic, in seconds)."""
        return min(self.last + self.closed_after, self.began + LONGEST)

    def line(self) -> dict[str, Any]:
        """Return the keys and values of its line in the log."""
        details: dict[str, Any] = {} if self.pass_id is None else {"pass": self.pass_id}
        if self.event == REPAIRED:
            details["summary"] = happened(self.row())
        details |= named(list(self.names))
        if self.drifts:
            details["drift"] = ",".join(self.drifts)
        if self.event != REPAIRED and self.words:
            detail = f": {self.detail}" if self.detail and len(self.names) == 1 else ""
            details["reason"] = self.words + detail
        if self.took is not None:
            details["took_ms"] = milliseconds(self.took)
        return details

    def row(self) -> dict[str, Any]:
        """Return its row of the history."""
        return {
            "first_at": self.first_at,
            "at": self.last_at,
            "event": self.event,
            **named(list(self.names), MOST_NAMES),
            "times": max(self.names.values(), default=0),
            "drift": ",".join(self.drifts) or None,
            "reason": self.words,
            "detail": self.detail if self.detail and len(self.names) == 1 else None,
            "served_ms": None if self.served is None else milliseconds(self.served),
            "took_ms": None if self.took is None else milliseconds(self.took),
            "pass": self.pass_id,
        }


class Incidents:
    """The open incidents, the oldest first."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], Incident] = {}
        self._urgent_from: dict[str, float] = {}  # event -> when one may be logged at once again

    def of(self, event: str, level: str, key: str, now: float, *, urgent: bool = False) -> Incident:
        """Return the open incident of one cause, or a new one.

        An ``urgent`` one is closed at once, unless that was so for one of the same event less than ten seconds ago.
        """
        incident = self._open.get((event, key))
        if incident is None:
            incident = self._open[event, key] = Incident(event, level, now)
            if urgent and now >= self._urgent_from.get(event, now):
                incident.closed_after = 0.0
                self._urgent_from[event] = now + LONGEST
        return incident

    def open(self) -> list[Incident]:
        """Return all open incidents."""
        return list(self._open.values())

    def due_at(self) -> float:
        """Return when the next one is to be closed; infinity if none is open."""
        return min((incident.due_at for incident in self._open.values()), default=float("inf"))

    def close(self, now: float) -> list[Incident]:
        """Close the incidents that are over by ``now``, and return them."""
        over = [(key, incident) for key, incident in self._open.items() if now >= incident.due_at]
        for key, _ in over:
            del self._open[key]
        return [incident for _, incident in over]


def named(names: list[str], most: int = _MOST_NAMES) -> dict[str, Any]:
    """Return the log keys for one entry, or for the first ``most`` of several and their number."""
    if len(names) == 1:
        return {"entry": names[0]}
    return {"entries": names[:most], "count": len(names)}
