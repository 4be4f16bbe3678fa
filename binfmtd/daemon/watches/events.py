"""Inotify events caused by other processes, merged until the next repair handles them."""

from collections.abc import Iterable
from enum import StrEnum, auto


class WatchKind(StrEnum):
    """The kinds of watched files, besides the files of interpreters, each of which has its path in place of a kind."""

    PAUSES = auto()  # written by `binfmtd pause` and `resume`
    PROBED = auto()  # the result of `binfmtd probe`
    LOCK = auto()  # of the state directory: removed by another program, mostly with the whole directory
    CONFIG = auto()  # all files of the config, with `reload_on_change`


class PendingEvents:
    """Changes by other processes since the last repair, as far as inotify reports them."""

    def __init__(self, entries: Iterable[str] = (), *, any_entry: bool = False, flushed: bool = False) -> None:
        self.entries = set(entries)  # entries that another process touched
        self.entries_written: set[str] = set()  # entries whose own file was written to: a flush does not do that
        self.any_entry = any_entry  # register or status was touched, or events were lost: any entry may have changed
        self.flushed = flushed  # status was touched, or all declared entries are gone at once
        self.overflow = False  # events were lost
        self.watch_removed = False  # the watch on the instance is gone
        self.changed_files: set[str] = set()  # a WatchKind, or an interpreter's path, each
        self.interpreter_installed = False  # an interpreter was installed: renamed into place, or written and closed

    def __bool__(self) -> bool:
        return bool(self.entries or self.any_entry or self.overflow or self.watch_removed or self.changed_files)

    @property
    def interpreters(self) -> set[str]:
        """The paths of interpreters whose files may have changed."""
        return {owner for owner in self.changed_files if owner.startswith("/")}

    def beside_entries(self) -> "PendingEvents":
        """Return all of it but the changes to entries."""
        rest = PendingEvents()
        rest.overflow, rest.watch_removed = self.overflow, self.watch_removed
        rest.changed_files, rest.interpreter_installed = self.changed_files, self.interpreter_installed
        return rest

    def add(self, other: "PendingEvents") -> None:
        """Add later changes to these."""
        self.entries |= other.entries
        self.entries_written |= other.entries_written
        self.any_entry |= other.any_entry
        self.flushed |= other.flushed
        self.overflow |= other.overflow
        self.watch_removed |= other.watch_removed
        self.changed_files |= other.changed_files
        self.interpreter_installed |= other.interpreter_installed
