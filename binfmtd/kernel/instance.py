"""One instance of binfmt_misc, opened for a pass: the names, inode numbers and texts of its entries.

The descriptor is closed at the end of the pass.  While it is open, an administrator's ``umount`` fails with EBUSY.
After a lazy unmount we would go on with an instance that no other process can reach.

Names are bytes in the kernel, and strings with surrogate escapes here, as Python has file names in UTF-8 (``start`` in
cli/main.py makes it use UTF-8 under any locale).
"""

import os
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from itertools import islice
from typing import Self

from binfmtd.errors import PASSING, MountError
from binfmtd.files.cure import cure
from binfmtd.formats.entry_file import parse_entry
from binfmtd.kernel.mount import Mounted, created_at, open_place
from binfmtd.kernel.steps import Steps, in_one_go
from binfmtd.model.entry import Entry, ObservedState

_ENTRY_BYTES = 8192  # the kernel prints an entry into one page
_CONTROL_FILES = frozenset({"register", "status"})
_LISTED = 200  # entries in a slice of a listing, about 0.1 ms
_READ = 10  # entries that are read in a slice, about 0.1 ms


class Instance:
    """An opened instance, to be read.  Raises MountError if the path no longer leads to that instance's file system.

    ``descriptor`` is one for paths that begin at the directory (O_PATH in open(2)); a listing opens the directory.
    """

    def __init__(self, mounted: Mounted) -> None:
        self.mounted = mounted
        try:
            descriptor = open_place(mounted)
        except OSError as error:
            message = f"{mounted.directory}: {error.strerror}: check that binfmt_misc is still mounted there"
            raise MountError(message, error.errno) from None
        if descriptor is not None:
            self.descriptor = descriptor
            if mounted.created in (0, self.created()):
                return
            os.close(descriptor)
        raise MountError(f"{mounted.directory}: binfmt_misc was unmounted, or another mount covers it: mount it again")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    def inode(self, name: str) -> int | None:
        """Return the inode number of an entry, which is new with each registration; None if there is no entry."""
        try:
            return os.stat(name, dir_fd=self.descriptor).st_ino
        except OSError:
            return None

    def inodes(self) -> list[tuple[str, int]]:
        """Return name and inode number of all entries, newest first; about 0.5 us an entry.  Raises MountError."""
        return [listed for part in self.files_in_slices() for listed in part if listed[0] not in _CONTROL_FILES]

    def files_in_slices(self) -> Iterator[list[tuple[str, int]]]:
        """Yield the same in slices of about 0.1 ms, with `register` and `status`."""
        with self._listing() as listing:
            while listed := [(entry.name, entry.inode()) for entry in islice(listing, _LISTED)]:
                yield listed

    def newest_first(self) -> Iterator[tuple[str, int]]:
        """Yield name and inode number of the entries, for a caller that needs the first few.  Raises MountError."""
        with self._listing() as listing:
            for entry in listing:
                if entry.name not in _CONTROL_FILES:
                    yield entry.name, entry.inode()

    @contextmanager
    def _listing(self) -> Iterator[Iterator[os.DirEntry[str]]]:
        try:
            descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.descriptor)
            try:
                with os.scandir(descriptor) as listing:
                    yield listing
            finally:
                os.close(descriptor)
        except OSError as error:
            remedy = cure(error) if error.errno in PASSING else "see dmesg"
            message = f"{self.mounted.directory} cannot be listed: {error.strerror}: {remedy}"
            raise MountError(message, error.errno) from None

    def entry(self, name: str) -> Entry | None:
        """Read one entry, in about 10 us; None if it does not exist or cannot be read (it may vanish at any time)."""
        text = self._read(name)
        if text is None:
            return None
        content, file = text
        return Entry(name, file.st_ino, *parse_entry(content))

    def created(self) -> int:
        """Return the time at which this instance was created, in nanoseconds; it differs from the next instance's."""
        return created_at(self.descriptor, self.mounted.device)

    def switched_on(self) -> bool:
        """Return True if the instance as a whole is enabled, or if its ``status`` cannot be read or is covered."""
        text = self._read("status")
        return text is None or text[1].st_dev != self.mounted.device or text[0].strip() != b"disabled"

    def status_covered(self) -> bool:
        """Return True if a file of another file system is mounted over `status`, so that its content means nothing.

        WSL does that: no program of a distribution can then remove all entries (pull request 40621 of microsoft/WSL).
        """
        try:
            return os.stat("status", dir_fd=self.descriptor).st_dev != self.mounted.device
        except OSError:
            return False

    def _read(self, name: str) -> tuple[bytes, os.stat_result] | None:
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.descriptor)
        except OSError:
            return None
        try:
            return os.read(descriptor, _ENTRY_BYTES), os.fstat(descriptor)
        except OSError:
            return None
        finally:
            os.close(descriptor)


class Observer:
    """A reader of whole instances that reads again only the entries that may have changed since its last look.

    Each registration gives an entry a new inode number.  So an entry with a known name and number has its known text,
    unless another program wrote to its file.  That raises an event with its name, and the caller passes the name on.
    """

    def __init__(self) -> None:
        self._known: dict[str, Entry] = {}
        self._parts: list[list[tuple[str, int]]] = []  # of the last listing
        self._parts_known = False  # False: the last look read more than that listing has
        self._observed = ObservedState()

    def observe(self, instance: Instance, touched: set[str] | None = None) -> ObservedState:
        """Observe the instance; ``touched`` are the names to read again, None for all of them.  Raises MountError.

        Of the entries that a flush removes meanwhile, the result has all or none: half of them missing would look like
        removals by name.  If nothing has changed since the last look, the same object is returned.
        """
        return in_one_go(self.scan(instance, touched))

    def scan(self, instance: Instance, touched: set[str] | None) -> Steps[ObservedState]:
        """Observe the instance in slices of about 0.1 ms, as ``observe`` does in one go.

        Entries that are changed between two slices may be in the result as they were: look again, with their names.
        """
        again, last = touched or set(), iter(self._parts)
        parts, changed, enabled = [], not self._parts_known, 0
        for part in instance.files_in_slices():
            part_before = next(last, None)
            same = part == part_before
            changed |= not same
            parts.append(part_before if same and part_before else part)  # frees an equal part now, not all at the end
            yield
        changed |= next(last, None) is not None
        if touched is None or changed or not again.isdisjoint(self._known):
            entries = dict[str, Entry]()
            for part in parts:
                known, read = self._known, 0
                for name, inode in part:
                    entry = before = known.get(name)
                    if touched is None or before is None or before.inode != inode or name in again:
                        if name in _CONTROL_FILES:
                            continue
                        entry, read = instance.entry(name), read + 1
                        if entry == before:
                            entry = before  # the same object, so that what is known of it need not be found out again
                        if read % _READ == 0:
                            yield
                    changed |= entry is not before
                    if entry is not None:
                        entries[name] = entry
                        enabled += entry.enabled
                yield
            if changed:
                self._take_in(entries, enabled, parts, instance)
        switched_on = instance.switched_on()
        if switched_on != self._observed.switched_on:
            self._observed = self._observed.switched(enabled=switched_on)
        return self._observed

    def refresh(self, instance: Instance, observed: ObservedState, written: AbstractSet[str]) -> ObservedState | None:
        """Observe the instance again, after writes that concern only these relevant entries of ``observed``.

        Reads the entries that were registered since, and those that were ``written``.  Return None if that is not
        enough: no older entry exists any more, as after a flush, or one was changed at this moment.  Raises MountError.
        """
        listed, survivor = self._registered_since(instance)
        read = ((instance.entry(name), inode) for name, inode in listed)
        newest = [entry for entry, inode in read if entry is not None and entry.inode == inode]
        if len(newest) < len(listed) or (self._known and not survivor):
            return None
        changed = {name: instance.entry(name) for name in self._known.keys() & written - {e.name for e in newest}}
        if any(entry is not None and entry.inode != self._known[name].inode for name, entry in changed.items()):
            return None
        self._observed = observed.after(newest, changed, switched_on=instance.switched_on())
        self._known, self._parts_known = self._observed.by_name, False
        return self._observed

    def _take_in(
        self, entries: dict[str, Entry], enabled: int, parts: list[list[tuple[str, int]]], instance: Instance
    ) -> None:
        """Make these entries the observed ones, but leave out what a flush has removed since they were listed."""
        complete = len(entries) == sum(map(len, parts)) - len(_CONTROL_FILES)
        if not complete:
            standing = set(instance.inodes())
            entries = {name: entry for name, entry in entries.items() if (name, entry.inode) in standing}
            enabled = sum(entry.enabled for entry in entries.values())
        self._known, self._parts, self._parts_known = entries, parts, complete
        self._observed = ObservedState(tuple(entries.values()), self._observed.switched_on)
        self._observed.by_name, self._observed.enabled = entries, enabled

    def inodes(self) -> frozenset[int]:
        """Return the inode numbers of the entries at the last look."""
        return frozenset(entry.inode for entry in self._known.values())

    def newcomers(self, instance: Instance) -> list[Entry]:
        """Return the entries registered since the last look, which stays the last look.  Raises MountError."""
        listed, _ = self._registered_since(instance)
        return [entry for name, _ in listed if (entry := instance.entry(name)) is not None]

    def _registered_since(self, instance: Instance) -> tuple[list[tuple[str, int]], bool]:
        """Return name and inode number of the entries registered since the last look, and True if an older one is left.

        They are the newest ones: below an older entry nothing is new.
        """
        registered: list[tuple[str, int]] = []
        for name, inode in instance.newest_first():
            if (before := self._known.get(name)) is not None and before.inode == inode:
                return registered, True
            registered.append((name, inode))
        return registered, False
