"""Inotify events caused by other processes, merged until the next repair handles them."""

from collections.abc import Iterable


class PendingEvents:
    """Changes by other processes since the last repair, as far as inotify reports them."""

    def __init__(self, names: Iterable[str] = (), *, everything: bool = False, flushed: bool = False) -> None:
        self.names = set(names)  # entries that another process touched
        self.written: set[str] = set()  # entries whose own file was written to: a flush does not do that
        self.everything = everything  # register or status was touched, or events were lost: any entry may have changed
        self.flushed = flushed  # status was touched, or all declared entries are gone at once
        self.overflow = False  # events were lost
        self.lost = False  # the watch on the instance is gone
        self.files: set[str] = set()  # owners of watched files that changed (Watch.use)
        self.arrived = False  # an interpreter was installed: renamed into place, or written and closed

    def __bool__(self) -> bool:
        return bool(self.names or self.everything or self.overflow or self.lost or self.files)

    @property
    def interpreters(self) -> set[str]:
        """The paths of interpreters whose files may have changed."""
        return {owner for owner in self.files if owner.startswith("/")}

    def beside_entries(self) -> "PendingEvents":
        """Return all of it but the changes to entries."""
        rest = PendingEvents()
        rest.overflow, rest.lost = self.overflow, self.lost
        rest.files, rest.arrived = self.files, self.arrived
        return rest

    def add(self, other: "PendingEvents") -> None:
        """Add later changes to these."""
        self.names |= other.names
        self.written |= other.written
        self.everything |= other.everything
        self.flushed |= other.flushed
        self.overflow |= other.overflow
        self.lost |= other.lost
        self.files |= other.files
        self.arrived |= other.arrived
