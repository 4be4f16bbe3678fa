"""One instance of binfmt_misc, opened for a pass: names, identities, texts.

The descriptor lives for one pass only.  One that stayed open would make the admin's ``umount`` fail with EBUSY, and an
instance that was unmounted lazily would go on working for us alone.

Names are bytes, written as UTF-8 with surrogate escapes: as Python writes file names (``start`` in cli/main.py sees to
it that it does so under any locale).
"""

import os
from types import TracebackType
from typing import Self

from binfmtd.errors import PASSING, MountError
from binfmtd.files.cure import cure
from binfmtd.formats.entryfile import parse_entry
from binfmtd.kernel.mount import Mounted
from binfmtd.model.entry import Entry, ObservedState

_ENTRY_BYTES = 8192  # the kernel prints an entry into one page
_CONTROL_FILES = frozenset({"register", "status"})


class Instance:
    """Reading one instance.  Raises MountError when what lies at the path is no longer that instance's file system."""

    def __init__(self, mounted: Mounted) -> None:
        self.mounted = mounted
        try:
            self.descriptor = os.open(mounted.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            message = f"{mounted.directory}: {error.strerror}: is binfmt_misc still mounted there?"
            raise MountError(message, error.errno) from None
        if os.fstat(self.descriptor).st_dev != mounted.device:
            os.close(self.descriptor)
            raise MountError(f"{mounted.directory}: binfmt_misc is no longer what is mounted there: mount it again")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.descriptor)

    def inode(self, name: str) -> int | None:
        """The identity of an entry; None if there is none of that name."""
        try:
            return os.stat(name, dir_fd=self.descriptor).st_ino
        except OSError:
            return None

    def inodes(self) -> list[tuple[str, int]]:
        """All entries, newest first: names and identities.  Costs about 1 us an entry."""
        try:
            os.lseek(self.descriptor, 0, os.SEEK_SET)
            with os.scandir(self.descriptor) as listing:  # which takes a descriptor of its own
                found = [(entry.name, entry.inode()) for entry in listing]
        except OSError as error:
            remedy = cure(error) if error.errno in PASSING else "see dmesg"
            message = f"{self.mounted.directory} cannot be listed: {error.strerror}: {remedy}"
            raise MountError(message, error.errno) from None
        return [(name, inode) for name, inode in found if name not in _CONTROL_FILES]

    def entry(self, name: str) -> Entry | None:
        """Read one entry; None if it is not there or cannot be read (it may vanish at any time).  About 10 us."""
        text = self._read(name)
        if text is None:
            return None
        content, inode = text
        return Entry(name, inode, *parse_entry(content))

    def created(self) -> int:
        """When this instance came into being, in nanoseconds: it tells one instance from the next.

        The kernel sets a file's times when it is created, and writes to `status` do not change them
        (fs/binfmt_misc.c, bm_fill_super; tests/kernel/test_facts.py).
        """
        return os.stat("status", dir_fd=self.descriptor).st_ctime_ns

    def switched_on(self) -> bool:
        """Whether the instance as a whole is enabled."""
        text = self._read("status")
        return text is None or text[0].strip() != b"disabled"

    def _read(self, name: str) -> tuple[bytes, int] | None:
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.descriptor)
        except OSError:
            return None
        try:
            return os.read(descriptor, _ENTRY_BYTES), os.fstat(descriptor).st_ino
        except OSError:
            return None
        finally:
            os.close(descriptor)


class Observer:
    """Looks at everything, reading only what may have changed since the last look.

    An entry's number changes with each registration, so a known name with a known number says what it said, unless
    somebody touched its file: that raises an event with its name, and whoever hears it passes the name on.
    """

    def __init__(self) -> None:
        self._known: dict[str, Entry] = {}

    def look(self, instance: Instance, touched: set[str] | None = None) -> ObservedState:
        """Observe the instance; ``touched`` are the names to read again, None for all of them.

        Of what goes in the middle of it all or nothing is seen: half of a flush would look like removals by name.
        """
        known = self._known if touched is not None else {}
        again = touched or set()
        entries = []
        listed = instance.inodes()
        for name, inode in listed:
            entry = known.get(name)
            if entry is None or entry.inode != inode or name in again:
                entry = instance.entry(name)
            if entry is not None:
                entries.append(entry)
        if len(entries) < len(listed):
            standing = set(instance.inodes())
            entries = [entry for entry in entries if (entry.name, entry.inode) in standing]
        self._known = {entry.name: entry for entry in entries}
        return ObservedState(tuple(entries), instance.switched_on())

    def inodes(self) -> frozenset[int]:
        """The numbers of the entries at the last look."""
        return frozenset(entry.inode for entry in self._known.values())

    def newcomers(self, instance: Instance) -> list[Entry]:
        """The entries that were registered since the last look; it stays the last look."""
        known = self._known
        fresh = [name for name, inode in instance.inodes() if name not in known or known[name].inode != inode]
        return [entry for name in fresh if (entry := instance.entry(name)) is not None]
