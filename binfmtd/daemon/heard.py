"""What was heard of others: a hint where to look, gathered until somebody answers it."""

from collections.abc import Iterable


class Heard:
    """What others did since the last look, as far as events tell."""

    def __init__(self, names: Iterable[str] = (), *, everything: bool = False, flushed: bool = False) -> None:
        self.names = set(names)  # entries that somebody touched
        self.written: set[str] = set()  # those whose own file was written to: a flush does not do that
        self.everything = everything  # register or status was touched, or events were lost: it may be any entry
        self.flushed = flushed  # status was touched, or all that was declared is gone at once
        self.overflow = False  # events were lost
        self.lost = False  # the watch on the instance is gone
        self.files: set[str] = set()  # the owners of watched files that changed (Watch.use)
        self.arrived = False  # an interpreter was put there as a whole: renamed, or written to its end

    def __bool__(self) -> bool:
        return bool(self.names or self.everything or self.overflow or self.lost or self.files)

    @property
    def interpreters(self) -> set[str]:
        """The paths of interpreters that may be other files now."""
        return {owner for owner in self.files if owner.startswith("/")}

    def beside_entries(self) -> "Heard":
        """What does not concern the entries that were touched."""
        rest = Heard()
        rest.overflow, rest.lost = self.overflow, self.lost
        rest.files, rest.arrived = self.files, self.arrived
        return rest

    def add(self, other: "Heard") -> None:
        """Take in what was heard later."""
        self.names |= other.names
        self.written |= other.written
        self.everything |= other.everything
        self.flushed |= other.flushed
        self.overflow |= other.overflow
        self.lost |= other.lost
        self.files |= other.files
        self.arrived |= other.arrived
