"""The observed state: the entries that the kernel has in one instance."""

from collections.abc import Iterable, Mapping, Sequence
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

    ``known_relevant``: those that a plan has to look at, if that is known (daemon/entries/entry_index.py).
    """

    def with_relevant(self, entries: tuple[Entry, ...]) -> "ObservedState":
        """Return the same state, of which a plan has to look only at these entries."""
        state = self._replace(known_relevant=entries)
        state.by_name, state.enabled = self.by_name, self.enabled
        return state

    def switched(self, *, enabled: bool) -> "ObservedState":
        """Return the same entries, of an instance that is enabled or disabled as a whole."""
        state = self._replace(switched_on=enabled)
        state.by_name, state.enabled = self.by_name, self.enabled
        return state

    def after(
        self, newest: Sequence[Entry], changed: Mapping[str, Entry | None], *, switched_on: bool
    ) -> "ObservedState":
        """Return the state after writes that concern only relevant entries.

        ``newest``: the entries that were registered since, newest first.  ``changed``: older entries that were enabled
        or disabled, or are gone (None).  This takes far less time than a new state with 10,000 entries.
        """
        moved = {entry.name: entry for entry in newest}
        now: dict[str, Entry | None] = {**changed, **moved}
        by_name = moved | self.by_name  # the newest come first, but with their older entries
        for name, entry in now.items():
            if entry is None:
                by_name.pop(name, None)
            else:
                by_name[name] = entry
        relevant = self.known_relevant
        if relevant is not None:
            older = (by_name[entry.name] for entry in relevant if entry.name in by_name and entry.name not in moved)
            relevant = (*newest, *older)
        state = ObservedState(tuple(by_name.values()), switched_on, relevant)
        state.by_name = by_name
        state.enabled = self.enabled + _enabled(by_name, now) - _enabled(self.by_name, now)
        return state

    @property
    def relevant(self) -> tuple[Entry, ...]:
        """The entries that a plan looks at, newest first: all of them if no index has left out bystanders."""
        return self.entries if self.known_relevant is None else self.known_relevant

    @cached_property
    def by_name(self) -> dict[str, Entry]:
        """Every entry by its name, stand-ins included."""
        return {entry.name: entry for entry in self.entries}

    @cached_property
    def enabled(self) -> int:
        """The number of entries that are enabled."""
        return sum(entry.enabled for entry in self.entries)

    @cached_property
    def position(self) -> dict[str, int]:
        """A map from a name to its position among the relevant entries, in the kernel's order; the lower one wins."""
        return {entry.name: place for place, entry in enumerate(self.relevant)}


def _enabled(by_name: Mapping[str, Entry], names: Iterable[str]) -> int:
    """Return the number of these entries that exist and are enabled."""
    return sum(entry is not None and entry.enabled for entry in map(by_name.get, names))
