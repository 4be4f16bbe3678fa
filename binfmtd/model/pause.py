"""An admin's maintenance: what is paused is not put back, whatever happens to it, until the pause ends.

Only what stops every exec is still disabled: nobody could end that maintenance.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

EVERYTHING = "*"


class Pauses(NamedTuple):
    """Which names are paused, and until when."""

    until: Mapping[str, float] = MappingProxyType({})  # seconds since boot; infinity: until somebody resumes

    def hold(self, name: str) -> bool:
        """Whether the entry of that name is left as it is."""
        return EVERYTHING in self.until or name in self.until

    def at(self, now: float) -> "Pauses":
        """Those that have not ended by then."""
        return Pauses({name: end for name, end in self.until.items() if end > now})

    def with_(self, names: list[str], end: float) -> "Pauses":
        """The same with these, which last until ``end``."""
        return Pauses({**self.until, **dict.fromkeys(names or [EVERYTHING], end)})

    def without(self, names: list[str]) -> "Pauses":
        """The same without these; no names: without any."""
        return Pauses({name: end for name, end in self.until.items() if names and name not in names})

    def end_at(self) -> float:
        """When the next one ends; infinity if none does by itself."""
        return min(self.until.values(), default=float("inf"))
