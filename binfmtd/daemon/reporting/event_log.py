"""Lines of the log: with the id of a pass, one line for all that one cause did, and one for a problem that lasts."""

import os
from collections.abc import Callable, Collection, Hashable, Iterable
from typing import Any, TypeVar

from binfmtd.daemon.entries.entry_state import StateTable
from binfmtd.daemon.reporting.incidents import Incident, Incidents, named
from binfmtd.daemon.reporting.recent_events import RecentEvents
from binfmtd.errors import WriteRefusedError
from binfmtd.model.drift import Drift
from binfmtd.report.counts import Counts
from binfmtd.report.happened import REPAIRED
from binfmtd.report.log import Logger, get_logger

_T = TypeVar("_T")
_K = TypeVar("_K", bound=Hashable)


class EventLog:
    """The log, and the history that the status contains."""

    def __init__(self, counts: Counts, history: RecentEvents, states: StateTable) -> None:
        """Number the passes by ``counts``, and continue ``history``; ``states`` has the last refusal of each entry."""
        self.log = get_logger()
        self._counts = counts
        self._history = history
        self._incidents = Incidents()
        self._run = os.urandom(3).hex()  # makes the ids of our passes differ from another daemon's
        self._said: set[str] = set()
        self._states = states

    @property
    def pass_id(self) -> str:
        """The id of the pass that is being made, or of the next one."""
        return f"{self._run}-{self._counts.passes.total() + 1}"

    @property
    def pass_log(self) -> Logger:
        """The logger for events that belong to a pass, or have led to it."""
        return self.log.bind(**{"pass": self.pass_id})

    def incident(self, level: str, event: str, key: str, now: float, *, urgent: bool = False) -> Incident:
        """Return the incident of the cause ``key``: one line, logged when that is over, or at once if ``urgent``."""
        incident = self._incidents.of(event, level, key, now, urgent=urgent)
        incident.pass_id = self.pass_id
        return incident

    def log_gathered(
        self, level: str, event: str, name: str, reason: str, now: float, drift: Drift | None = None
    ) -> None:
        """Log an event that may concern many entries: one line for all of them, at once if it is a warning."""
        self.incident(level, event, reason, now, urgent=level == "warning").add([name], reason, "", drift, now)

    def log_incident(self, incident: Incident) -> None:
        """Log an incident, and add it to the history."""
        getattr(self.log, incident.level)(incident.event, **incident.line())
        self._history.add(incident.row())

    def log_due(self, now: float, silent: Collection[str]) -> bool:
        """Log the incidents that are over; return True if there were any.

        Repairs of ``silent`` names alone get the level debug: the log has announced that more of them will come.
        """
        over = self._incidents.close(now)
        for incident in over:
            if incident.event == REPAIRED and incident.names.keys() <= set(silent):
                incident.level = "debug"
            self.log_incident(incident)
        return bool(over)

    def due_at(self) -> float:
        """Return when the next incident is to be logged (monotonic, in seconds); infinity if none is."""
        return self._incidents.due_at()

    def history(self) -> list[dict[str, Any]]:
        """Return the rows of the history, with those of the incidents that are not over."""
        return self._history.rows(self._incidents.open())

    def once(self, key: str, event: str, **details: object) -> None:
        """Log a warning once for each ``key``, and again only after ``forget_said``."""
        if self.is_news(key):
            self.log.warning(event, **details)

    def is_news(self, key: str) -> bool:
        """Return True at the first call with this key since ``forget_said``."""
        news = key not in self._said
        self._said.add(key)
        return news

    def forget_said(self) -> None:
        """Let problems that last be logged once more: another config is in force."""
        self._said.clear()

    def failed(self, failures: Iterable[tuple[str, WriteRefusedError]]) -> bool:
        """Log refusals, but no refusal that repeats the last one of its entry; return True if any was logged."""
        news = [(name, error) for name, error in failures if self._states[name].refusal_logged != str(error)]
        for name, error in news:
            self._states[name].refusal_logged = str(error)
        for (number, reason), refused in grouped(news, lambda failure: (failure[1].errno, str(failure[1]))):
            names = named([name for name, _ in refused])
            self.pass_log.error("registration_failed", **names, errno=number, reason=reason)
        return bool(news)

    def went_well(self, name: str) -> None:
        """Forget the last refusal of this entry, since a write has succeeded: the next refusal is logged."""
        self._states[name].refusal_logged = None


def grouped(items: Iterable[_T], key: Callable[[_T], _K]) -> list[tuple[_K, list[_T]]]:
    """Group items by their keys: a flush of many entries then makes one line, not one for each."""
    groups: dict[_K, list[_T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.items())
