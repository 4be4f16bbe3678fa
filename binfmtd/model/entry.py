"""The observed state: the entries that the kernel has in one instance."""

from functools import cached_property
from typing import NamedTuple

from binfmtd.model.handler import Registration


class Entry(NamedTuple):
    """One entry.

    ``inode`` is its identity: the kernel assigns a new number with every registration, and never the same one twice in
    a boot (fs/binfmt_misc.c, bm_get_inode).  ``registration`` is None if the entry's text contains something that this
    version cannot parse (newer kernels).  Such an entry counts as foreign, and its match is unknown.
    """

    name: str
    inode: int
    enabled: bool
    registration: Registration | None


class _Observed(NamedTuple):
    entries: tuple[Entry, ...] = ()
    switched_on: bool = True


class ObservedState(_Observed):
    """All entries of an instance, newest first, which is the order in which the kernel tries them."""

    @cached_property
    def by_name(self) -> dict[str, Entry]:
        """Every entry by its name, stand-ins included."""
        return {entry.name: entry for entry in self.entries}

    @cached_property
    def position(self) -> dict[str, int]:
        """A map from a name to its position in the kernel's order; the lower position wins."""
        return {entry.name: place for place, entry in enumerate(self.entries)}
