"""What the kernel holds: entries, and the observed state of one instance."""

from functools import cached_property
from typing import NamedTuple

from binfmtd.model.handler import Registration


class Entry(NamedTuple):
    """One entry.

    ``inode`` is its identity: the kernel never gives the same number twice in a boot, and a new one with every
    registration (fs/binfmt_misc.c, bm_get_inode).  ``registration`` is None where the entry's text says something
    that this version cannot know (newer kernels): such an entry is foreign and opaque.
    """

    name: str
    inode: int
    enabled: bool
    registration: Registration | None


class _Observed(NamedTuple):
    entries: tuple[Entry, ...] = ()
    switched_on: bool = True


class ObservedState(_Observed):
    """All entries of an instance, newest first: in the order in which the kernel asks them."""

    @cached_property
    def by_name(self) -> dict[str, Entry]:
        """Every entry under its name, stand-ins too."""
        return {entry.name: entry for entry in self.entries}

    @cached_property
    def position(self) -> dict[str, int]:
        """Name -> place in the kernel's order; the lower wins."""
        return {entry.name: place for place, entry in enumerate(self.entries)}
