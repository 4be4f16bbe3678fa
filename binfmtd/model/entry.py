"""The observed state: the entries that the kernel has in one instance."""

from collections.abc import Mapping
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
    known_relevant: tuple[Entry, ...] | None = None


class ObservedState(_Observed):
    """All entries of an instance, newest first, which is the order in which the kernel tries them.

    ``known_relevant``: those that a plan has to look at, if that is known (daemon/entry_index.py).
    """

    def with_relevant(self, entries: tuple[Entry, ...]) -> "ObservedState":
        """Return the same state, of which a plan has to look only at these entries."""
        found = self._replace(known_relevant=entries)
        found.by_name = self.by_name
        return found

    def switched(self, *, enabled: bool) -> "ObservedState":
        """Return the same entries, of an instance that is enabled or disabled as a whole."""
        found = self._replace(switched_on=enabled)
        found.by_name = self.by_name
        return found

    @property
    def relevant(self) -> tuple[Entry, ...]:
        """The entries that a plan looks at, newest first: all of them if no index has left out bystanders."""
        return self.entries if self.known_relevant is None else self.known_relevant

    @cached_property
    def by_name(self) -> dict[str, Entry]:
        """Every entry by its name, stand-ins included."""
        return {entry.name: entry for entry in self.entries}

    def other_than(self, names: frozenset[str]) -> Mapping[str, bool]:
        """Return the entries without these, newest first: name -> True if it is enabled."""
        found = self._other_than.get(names)
        if found is None:
            self._other_than.clear()
            found = {entry.name: entry.enabled for entry in self.entries if entry.name not in names}
            self._other_than[names] = found
        return found

    @cached_property
    def _other_than(self) -> dict[frozenset[str], dict[str, bool]]:
        # A cache of the last answer: with 10,000 entries it takes most of the time of a status document.
        return {}

    @cached_property
    def position(self) -> dict[str, int]:
        """A map from a name to its position among the relevant entries, in the kernel's order; the lower one wins."""
        return {entry.name: place for place, entry in enumerate(self.relevant)}
