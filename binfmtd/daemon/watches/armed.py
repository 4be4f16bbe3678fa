"""Watches that a thread has armed, and the events since then that concern them.

A thread arms the watches on files, since that may block.  The loop uses them later, and reads events meanwhile: one
that concerns an armed name, and that no owner used yet, must not be lost.
"""

from collections import deque
from collections.abc import Collection, Mapping
from itertools import takewhile
from types import MappingProxyType
from typing import NamedTuple

from binfmtd.files.paths import ANY_NAME
from binfmtd.formats.register_line import to_text

_RECENT = 1000  # events that are kept, at most


class Armed(NamedTuple):
    """Names to watch by watch descriptor, for ``use``, and directories that can never be watched.

    ``since`` is the number of the last event that was read before the arming.  ``incomplete`` is the reason why some
    directories have to be armed again: the kernel had no inotify instance or watch left.
    """

    names: Mapping[int, Collection[str]] = MappingProxyType({})
    unwatched: tuple[str, ...] = ()
    since: int = 0
    incomplete: str | None = None


def concerned(name: str, names: Collection[str]) -> list[str]:
    """Return those of the watched ``names`` of a directory that an event concerns; it has no name if it is about it."""
    if not name:
        return list(names)
    hidden = name.startswith(".")  # in directories of configs these are editors' files and our locks
    return [known for known in (name, *(() if hidden else (ANY_NAME,))) if known in names]


class RecentFileEvents:
    """The last events about files: a thread may have armed their names for an owner that does not use them yet."""

    def __init__(self) -> None:
        self.number = 0  # of the last event
        self._kept: deque[tuple[int, int, str]] = deque(maxlen=_RECENT)  # number, watch descriptor, name
        self._lost = 0  # number of the last event that is not known

    def add(self, descriptor: int, name: bytes) -> None:
        """Keep an event, and drop the oldest one if there are more than a thousand."""
        self.number += 1
        if len(self._kept) == _RECENT:
            self._lost = self._kept[0][0]
        self._kept.append((self.number, descriptor, to_text(name)))

    def lose(self) -> None:
        """Record that events were lost, whose names are not known."""
        self.number += 1
        self._lost = self.number

    def concern(self, armed: Armed) -> bool:
        """Return True if an event since the arming concerns one of the names, or may have concerned it and is lost."""
        if not any(armed.names.values()) or self._lost > armed.since:
            return any(armed.names.values())
        new = takewhile(lambda event: event[0] > armed.since, reversed(self._kept))
        return any(concerned(name, armed.names.get(descriptor, ())) for _, descriptor, name in new)
