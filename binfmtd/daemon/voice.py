"""How the daemon says something: under the id of a pass, what one cause did in one line, what lasts once."""

import os
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, TypeVar

from binfmtd.daemon.history import History
from binfmtd.daemon.incidents import Incident, Incidents, named
from binfmtd.errors import WriteRefusedError
from binfmtd.report.counts import Counts
from binfmtd.report.happened import REPAIRED
from binfmtd.report.log import Logger, get_logger

_T = TypeVar("_T")
_K = TypeVar("_K", bound=Hashable)


class Voice:
    """The log, and the history in the status."""

    def __init__(self, counts: Counts, history: History) -> None:
        """``counts`` tell which pass it is."""
        self.log = get_logger()
        self._counts = counts
        self._history = history
        self._incidents = Incidents()
        self._run = os.urandom(3).hex()  # so that no other daemon's passes have the ids of ours
        self._said: set[str] = set()
        self._failures: dict[str, str] = {}  # entry -> the refusal that was logged

    @property
    def pass_id(self) -> str:
        """The pass that is being made, or the next one."""
        return f"{self._run}-{self._counts.passes.total() + 1}"

    @property
    def pass_log(self) -> Logger:
        """What belongs to a pass, or has led to it."""
        return self.log.bind(**{"pass": self.pass_id})

    def incident(self, level: str, event: str, key: str, now: float, *, urgent: bool = False) -> Incident:
        """What is told in one line when the cause that ``key`` stands for is over."""
        incident = self._incidents.of(event, level, key, now, urgent=urgent)
        incident.pass_id = self.pass_id
        return incident

    def tell(self, incident: Incident) -> None:
        """Log it, and remember it for the status."""
        getattr(self.log, incident.level)(incident.event, **incident.line())
        self._history.add(incident.row())

    def tell_due(self, now: float, silent: Mapping[str, object]) -> bool:
        """Tell what is over; whether there was anything.

        Of repairs of ``silent`` names the log has said that there will be more of them.
        """
        over = self._incidents.close(now)
        for incident in over:
            if incident.event == REPAIRED and incident.names.keys() <= silent.keys():
                incident.level = "debug"
            self.tell(incident)
        return bool(over)

    def due_at(self) -> float:
        """When something is to be told; infinity if nothing is."""
        return self._incidents.due_at()

    def history(self) -> list[dict[str, Any]]:
        """The rows of the status, with what is going on."""
        return self._history.rows(self._incidents.open())

    def once(self, key: str, event: str, **details: object) -> None:
        """Log what lasts; not again until ``forget_said``."""
        if self.is_news(key):
            self.log.warning(event, **details)

    def is_news(self, key: str) -> bool:
        """True for the first time since ``forget_said``."""
        news = key not in self._said
        self._said.add(key)
        return news

    def forget_said(self) -> None:
        """What lasts is to be said once more: the config is another one."""
        self._said.clear()

    def failed(self, failures: Iterable[tuple[str, WriteRefusedError]]) -> bool:
        """Log refusals, but not each time that the same is tried again; True if any is news."""
        news = [(name, error) for name, error in failures if self._failures.get(name) != str(error)]
        self._failures |= {name: str(error) for name, error in news}
        for (number, reason), refused in grouped(news, lambda each: (each[1].errno, str(each[1]))):
            names = named([name for name, _ in refused])
            self.pass_log.error("registration_failed", **names, errno=number, reason=reason)
        return bool(news)

    def went_well(self, name: str) -> None:
        """What was refused before has been done: the next refusal is news."""
        self._failures.pop(name, None)


def grouped(items: Iterable[_T], key: Callable[[_T], _K]) -> list[tuple[_K, list[_T]]]:
    """What happened to many at once (a flush) makes one line, not one each."""
    groups: dict[_K, list[_T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.items())
