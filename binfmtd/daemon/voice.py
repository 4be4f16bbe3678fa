"""How the daemon says something: under the id of a pass, what happened to many in one line, what lasts once."""

import os
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, TypeVar

from binfmtd.daemon.history import History
from binfmtd.daemon.status_file import now
from binfmtd.errors import WriteRefusedError
from binfmtd.report.counts import Counts
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

    def tell(self, level: str, event: str, names: list[str], details: Mapping[str, Any]) -> None:
        """Log a drift or a repair, and remember it for the status."""
        getattr(self.pass_log, level)(event, **named(names), **details)
        self._history.add(now(), event, {"pass": self.pass_id, **named(names), **details})

    def once(self, key: str, event: str, **details: object) -> None:
        """Log what lasts; not again until ``forget_said``."""
        if key not in self._said:
            self._said.add(key)
            self.log.warning(event, **details)

    def forget_said(self) -> None:
        """What lasts is to be said once more: the config is another one."""
        self._said.clear()

    def failed(self, name: str, error: WriteRefusedError) -> bool:
        """Log a refusal, but not each time that the same is tried again; True if it is news."""
        news = self._failures.get(name) != str(error)
        if news:
            self._failures[name] = str(error)
            self.pass_log.error("registration_failed", entry=name, errno=error.errno, reason=str(error))
        return news

    def went_well(self, name: str) -> None:
        """What was refused before has been done: the next refusal is news."""
        self._failures.pop(name, None)


def grouped(items: Iterable[_T], key: Callable[[_T], _K]) -> list[tuple[_K, list[_T]]]:
    """What happened to many at once (a flush) makes one line, not one each."""
    groups: dict[_K, list[_T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.items())


def named(names: list[str]) -> dict[str, Any]:
    """The fields that name one entry, or several."""
    return {"entry": names[0]} if len(names) == 1 else {"entries": names}
