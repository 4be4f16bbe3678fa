"""Pauses, for an administrator's maintenance: a paused entry is not repaired until the pause ends.

The exception is an entry that breaks every exec.  It is disabled even if it is paused, since the administrator could
run no command to end the pause.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

EVERYTHING = "*"  # a pause of this name holds all entries
SEAL = "/seal"  # one of this name holds no entry, and opens the seal as every pause does; no entry's name has a slash


def shown(name: str) -> str:
    """Return the words for what a pause of this name holds."""
    return {EVERYTHING: "everything", SEAL: "the seal"}.get(name, name)


class Pauses(NamedTuple):
    """The names that are paused, and the time when each pause ends."""

    until: Mapping[str, float] = MappingProxyType({})  # seconds since boot; infinity: until `binfmtd resume`

    def hold(self, name: str) -> bool:
        """Return True if the entry of that name is paused, alone or with all others."""
        return EVERYTHING in self.until or name in self.until

    def at(self, now: float) -> "Pauses":
        """Return the pauses that end after ``now``, in seconds since boot."""
        return Pauses({name: end for name, end in self.until.items() if end > now})

    def with_(self, names: list[str], end: float) -> "Pauses":
        """Return these pauses and those of ``names`` until ``end``; no names: a pause of all entries."""
        return Pauses({**self.until, **dict.fromkeys(names or [EVERYTHING], end)})

    def without(self, names: list[str]) -> "Pauses":
        """Return these pauses without those of ``names``; no names: no pauses at all."""
        return Pauses({name: end for name, end in self.until.items() if names and name not in names})

    def end_at(self) -> float:
        """Return the time when the next pause ends, in seconds since boot; infinity if none ends by itself."""
        return min(self.until.values(), default=float("inf"))
