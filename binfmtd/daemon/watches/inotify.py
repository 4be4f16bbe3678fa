"""inotify, by pyinotify: events of the instance, of interpreters' files and of the config.

A watch on binfmt_misc's directory reports (measured, see docs/kernel.md):

* a registration: only the name ``register`` (OPEN, MODIFY unless refused, CLOSE_WRITE);
* enabling, disabling or removing one entry: the entry's name (the same events; from 6.18 on, removing adds DELETE);
* a flush, and switching the instance on or off: ``status``; from 6.18 on, a flush first reports DELETE for each entry;
* the end of the last mount: UNMOUNT and IGNORED.

The kernel merges equal neighbouring events.  So an event is a reason to look at the instance, and does not contain what
has changed.

Only the watch manager of pyinotify is used.  On the way to a repair its notifier would cost three times as much as
reading its descriptor here.
"""

import ctypes
import fcntl
import logging
import os
import select
import struct
import termios
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import SimpleNamespace

import pyinotify

from binfmtd.daemon.watches.armed import Armed, RecentFileEvents, concerned
from binfmtd.daemon.watches.events import PendingEvents, WatchKind
from binfmtd.files.paths import ITSELF
from binfmtd.formats.register_line import to_text
from binfmtd.kernel.writer import Wrote

# When it is imported, pyinotify begins to log to stderr; it reports errors there that it also returns.
logging.getLogger("pyinotify").handlers.clear()
logging.getLogger("pyinotify").propagate = False
logging.getLogger("pyinotify").disabled = True
# pyinotify would execute ldconfig, or gcc, to find the C library, which Python has loaded: for CDLL that is None.
_find = SimpleNamespace(find_library=lambda _: None)
pyinotify.ctypes = SimpleNamespace(**vars(ctypes) | {"util": _find})

_INSTANCE_MASK = pyinotify.IN_MODIFY | pyinotify.IN_CLOSE_WRITE | pyinotify.IN_DELETE
_DIRECTORY_MASK = pyinotify.IN_ATTRIB | pyinotify.IN_DELETE_SELF | pyinotify.IN_MOVE_SELF | pyinotify.IN_ONLYDIR
_FILE_MASK = (
    pyinotify.IN_CREATE
    | pyinotify.IN_DELETE
    | pyinotify.IN_MOVED_FROM
    | pyinotify.IN_MOVED_TO
    | pyinotify.IN_CLOSE_WRITE
    | _DIRECTORY_MASK
)
_ARRIVALS = pyinotify.IN_MOVED_TO | pyinotify.IN_CLOSE_WRITE
_STATE_FILES = frozenset({WatchKind.PAUSES, WatchKind.PROBED, WatchKind.LOCK})
_KINDS = frozenset(WatchKind)
_ENDS = (pyinotify.IN_UNMOUNT, pyinotify.IN_IGNORED)
_GONE = pyinotify.IN_UNMOUNT | pyinotify.IN_IGNORED
_HEAD = struct.Struct("iI")
_EVENT = struct.Struct("iIII")
_LENGTH = struct.Struct("I")
_LENGTH_AT = 12  # the last of an event's four numbers is the length of its name
_BUFFER_BYTES = 8192  # a flush of 33 handlers reports 3 KiB; to allocate a larger buffer takes longer
_MOST_BYTES = 131072  # some 4,000 events; a flush of 1,000 entries makes half of that
_STATUS = b"status\0"  # the file that a flush is written to
_FEW_BYTES = 4 * 32  # before 6.18 a flush reports no more, and looks as if the instance were switched off
_REST_BYTES = 65536
_WALKS = 3  # at most, of paths whose directories are exchanged during the walk
_REFUSED = -1
_LOST = -1  # IN_Q_OVERFLOW belongs to no watch
_LARGEST_EVENT = _EVENT.size + 256  # a name has up to 255 bytes and a NUL


class _NoneLeftError(OSError):
    """The kernel has no inotify instance or no watch left."""


class InotifyWatcher:
    """The one inotify instance of the daemon.

    Where the kernel has no inotify instance or no watch left, ``exhausted`` is the reason with the remedy; the next
    ``open`` or ``watch_instance`` tries again.  It stays the reason until all owners have their watches.
    """

    def __init__(self) -> None:
        self.descriptor: int | None = None
        self.exhausted: str | None = None
        self.saw_unrelated = (
            False  # the last reading met files that no owner watches, beside interpreters or the config
        )
        self._manager: pyinotify.WatchManager | None = None
        self._instance: int | None = None
        self._recent = RecentFileEvents()
        self._files: dict[int, dict[str, set[str]]] = {}  # watch descriptor -> name -> owners
        self._names: dict[str, Mapping[int, Collection[str]]] = {}  # owner -> watch descriptor -> names
        self.incomplete: set[str] = set()  # owners that lack a watch, since none was left
        self._perhaps_unused: set[int] = set()  # watch descriptors, armed or given up since the last ``tidy``
        self._others_write: set[int] = set()  # watch descriptors; not of the state directory, where we write

    def open(self) -> int | None:
        """Open inotify; return its descriptor, or None if it was open already or the kernel has no instance left."""
        if self._manager is not None:
            return None
        if not self.incomplete:
            self.exhausted = None
        try:
            self._manager = pyinotify.WatchManager()
        except OSError:
            self.exhausted = "no inotify instance is left: raise fs.inotify.max_user_instances with sysctl"
            return None
        self.descriptor = int(self._manager.get_fd())
        # pyinotify's descriptor blocks and is inherited.
        os.set_blocking(self.descriptor, False)
        os.set_inheritable(self.descriptor, False)  # noqa: FBT003
        return self.descriptor

    @property
    def watches_instance(self) -> bool:
        """True if a mounted instance is watched."""
        return self._instance is not None

    def watch_instance(self, directory: str) -> bool:
        """Arm the watch on a mounted instance; return True if the instance is another one, or the watch had been lost.

        The kernel returns the same watch descriptor for the same directory of the same instance.
        """
        before = self._instance
        if self._manager is not None and not self.incomplete:
            self.exhausted = None
        try:
            self._instance = self._add(directory, _INSTANCE_MASK)
        except OSError as error:
            self._instance = None
            self.exhausted = self.exhausted or f"{directory}: inotify cannot watch it: {error}"
        if before is not None and before != self._instance:
            self._remove(before)
        return self._instance not in (None, before)

    def _forget_instance(self) -> None:
        """Drop the watch on an instance that is unmounted."""
        if self._instance is not None:
            self._remove(self._instance)
            self._instance = None

    def arm(self, directory: str, names: Collection[str]) -> int:
        """Begin to watch names (or ANY_NAME, or ITSELF) in a directory; return its watch descriptor, for ``use``.

        Any thread may call it: looking the directory up blocks where its file system does not answer.
        Raises OSError.
        """
        descriptor = self._add(directory, _DIRECTORY_MASK if set(names) == {ITSELF} else _FILE_MASK)
        self._perhaps_unused.add(descriptor)
        return descriptor

    def arm_all(self, find: Callable[[], Mapping[str, Collection[str]]]) -> Armed:
        """Arm the directories that ``find`` returns, until it returns the same again: they may be exchanged meanwhile.

        Any thread may call it.
        """
        directories: Mapping[str, Collection[str]] = {}
        armed, since = Armed(), self._recent.number
        for _ in range(_WALKS):
            before, directories = directories, find()
            if directories == before:
                break
            names: dict[int, set[str]] = {}
            failed, incomplete = [], None
            for directory, wanted in directories.items():
                try:
                    # Two paths may be one directory: the kernel then returns one descriptor.
                    names.setdefault(self.arm(directory, wanted), set()).update(wanted)
                except _NoneLeftError as error:
                    incomplete = str(error)
                except OSError:
                    failed.append(directory)
            armed = Armed(names, () if incomplete else tuple(failed), since, incomplete)
        return armed

    def use(self, owner: str, armed: Armed) -> bool:
        """Report events on the armed names under ``owner``, and no longer on its earlier names.

        An owner is a WatchKind, or the absolute path of an interpreter.  Return True if an event that was read since
        the arming concerns one of the names: it may not have been reported under this owner.
        """
        names, before = armed.names, self._names.pop(owner, {})
        if armed.incomplete is None:
            self.incomplete.discard(owner)
        else:
            self.incomplete.add(owner)
            self.exhausted = self.exhausted or armed.incomplete
        if names:
            self._names[owner] = names
        for descriptor, gone in before.items():
            owners = self._files[descriptor]
            for name in gone:
                owners[name].discard(owner)
                if not owners[name]:
                    del owners[name]
        for descriptor, new in names.items():
            owners = self._files.setdefault(descriptor, {})
            for name in new:
                owners.setdefault(name, set()).add(owner)
            if owner not in _STATE_FILES:
                self._others_write.add(descriptor)
        for descriptor in before:
            if not self._files[descriptor]:
                del self._files[descriptor]
                self._others_write.discard(descriptor)
                self._perhaps_unused.add(descriptor)
        added = {descriptor: set(new) - set(before.get(descriptor, ())) for descriptor, new in names.items()}
        return self._recent.concern(armed._replace(names=added))  # events about the others were reported

    def tidy(self) -> None:
        """Stop watching directories that no owner uses.  Not to be called while a thread may have armed one."""
        for descriptor in self._perhaps_unused - self._files.keys() - {self._instance}:
            self._remove(descriptor)
        self._perhaps_unused.clear()

    def watch_files(self, owner: str, directories: Mapping[str, Collection[str]]) -> list[str]:
        """Arm these directories and use these names in them; return the directories that can never be watched."""
        armed = self.arm_all(lambda: directories)
        self.use(owner, armed)
        self.tidy()
        return list(armed.unwatched)

    def read(
        self,
        wrote: Sequence[Wrote] = (),
        events: PendingEvents | None = None,
        flushed: Callable[[], None] = lambda: None,
    ) -> PendingEvents:
        """Read all pending events, and leave out those that our own writes since the last call must have raised.

        The events of other programs are added to ``events``, or to a new one; return it.  ``flushed`` is called before
        the events are examined one by one, if they look like those of a flush and no other file has changed.
        The events of our own write are in the queue when it returns, so those that are missing now will not come.
        """
        data = self._read()
        begins = self._first_removals(data)
        if (begins or (_STATUS in data and len(data) > _FEW_BYTES)) and self._only_of_instance(data):
            flushed()
        events = PendingEvents() if events is None else events
        self.saw_unrelated = False
        own = _Own(wrote) if wrote else None
        if len(data) > _MOST_BYTES:
            self._read_many(events, data)
            return events
        offset, end = 0, len(data)
        while offset < end:
            descriptor, mask, _, length = _EVENT.unpack_from(data, offset)
            offset += _EVENT.size + length
            name = data[offset - length : offset].rstrip(b"\0")
            if descriptor == self._instance:
                self._read_instance_event(events, own, mask, name)
            elif mask & pyinotify.IN_Q_OVERFLOW:
                self._record_overflow(events)
            elif descriptor in self._files:
                names = self._files[descriptor]
                changed = set[str]().union(*(names[known] for known in concerned(to_text(name), names)))
                self._recent.add(descriptor, name)
                self.saw_unrelated |= not changed and descriptor in self._others_write
                events.changed_files |= changed
                events.interpreter_installed |= bool(changed - _KINDS and mask & _ARRIVALS)
            elif not mask & pyinotify.IN_IGNORED:
                self._recent.add(descriptor, name)
        # Two entries may be removed by name at the same time: both DELETEs may then come before both writes.
        if begins and begins <= events.entries and not begins & events.entries_written:
            events.any_entry = events.flushed = True
        return events

    def wait(self, seconds: float) -> None:
        """Wait until an event is pending, ``seconds`` at most."""
        if self.descriptor is not None:
            select.select([self.descriptor], [], [], seconds)

    def _first_removals(self, data: bytes) -> set[str]:
        """Return the names of the first two events, if both are removals with no write before them; else no name.

        From Linux 6.18 on the kernel reports a flush in this way as soon as it begins, and lets a registration wait
        until the flush has ended.
        """
        if not data or self._instance is None:
            return set()
        removal = _HEAD.pack(self._instance, pyinotify.IN_DELETE)
        if not data.startswith(removal):
            return set()
        second = _EVENT.size + _LENGTH.unpack_from(data, _LENGTH_AT)[0]
        if not data.startswith(removal, second):
            return set()
        end = second + _EVENT.size + _LENGTH.unpack_from(data, second + _LENGTH_AT)[0]
        names = (data[_EVENT.size : second], data[second + _EVENT.size : end])
        return {to_text(name.rstrip(b"\0")) for name in names}

    def _only_of_instance(self, data: bytes) -> bool:
        """Return True if these are certainly events of binfmt_misc alone.

        Events are a multiple of 16 bytes long (inotify(7)), and begin with the watch's descriptor.
        """
        others = {_LOST, *self._files} - {self._instance}
        return others.isdisjoint(memoryview(data).cast("i")[::4])

    def _record_overflow(self, events: PendingEvents) -> None:
        events.overflow = events.any_entry = True
        events.changed_files.update(self._names)
        self._recent.lose()

    def _read_many(self, events: PendingEvents, data: bytes) -> None:
        """Treat thousands of events as an overflow: to examine each would take longer than to look at everything.

        Watched files may have changed only in directories that have an event.  Events are a multiple of 16 bytes long
        (inotify(7)), and begin with the watch's descriptor; a part of a name may be taken for one.
        """
        events.overflow = events.any_entry = True
        self._recent.lose()
        descriptors = set(memoryview(data).cast("i")[::4])
        if _LOST in descriptors:
            self._record_overflow(events)
        for descriptor in descriptors & self._files.keys():
            events.changed_files.update(*self._files[descriptor].values())
        events.flushed |= b"status\0" in data
        if self._instance is not None and any(_HEAD.pack(self._instance, gone) in data for gone in _ENDS):
            events.watch_removed = True
            self._forget_instance()

    def _read_instance_event(self, events: PendingEvents, own: "_Own | None", mask: int, name: bytes) -> None:
        if mask & _GONE:
            events.watch_removed = events.any_entry = True
            self._forget_instance()
        elif own is not None and own.raised(name, mask):
            pass
        elif name == b"register":
            events.any_entry = True
        elif name == b"status":
            events.any_entry = events.flushed = True
        else:
            entry = to_text(name)
            events.entries.add(entry)
            if mask & ~pyinotify.IN_DELETE:
                events.entries_written.add(entry)

    def _add(self, directory: str, mask: int) -> int:
        if self._manager is None:
            raise _NoneLeftError(self.exhausted)
        try:
            # IN_MASK_ADD keeps an earlier mask: a config may name an interpreter in the instance's own directory.
            (descriptor,) = self._manager.add_watch(directory, mask | pyinotify.IN_MASK_ADD, quiet=False).values()
        except pyinotify.WatchManagerError as error:
            if "ENOSPC" in str(error):  # pyinotify does not pass on the number
                self.exhausted = "no inotify watch is left: raise fs.inotify.max_user_watches with sysctl"
                raise _NoneLeftError(self.exhausted) from None
            raise OSError(str(error)) from None
        except UnicodeEncodeError:
            raise OSError(f"{directory!r}: pyinotify accepts only names in UTF-8") from None
        return int(descriptor)

    def _remove(self, descriptor: int) -> None:
        if self._manager is not None:
            self._manager.rm_watch(descriptor)
            if self._manager.get_watch(descriptor) is not None:  # the kernel had dropped it: then pyinotify keeps it
                self._manager.del_watch(descriptor)

    def _read(self) -> bytes:
        """Return the events that are pending now, and no more: other programs may write faster than we read."""
        if self.descriptor is None:
            return b""
        try:
            data = os.read(self.descriptor, _BUFFER_BYTES)
        except BlockingIOError:
            return b""
        if len(data) <= _BUFFER_BYTES - _LARGEST_EVENT:
            return data
        (pending,) = struct.unpack("i", fcntl.ioctl(self.descriptor, termios.FIONREAD, bytes(4)))
        parts = [data]
        while pending > 0:
            parts.append(os.read(self.descriptor, _REST_BYTES))  # only we read, so what was pending still is
            pending -= len(parts[-1])
        return b"".join(parts)


class _Own:
    """The events that our own writes must have raised; the kernel merges equal neighbours, so fewer may come."""

    def __init__(self, wrote: Iterable[Wrote]) -> None:
        self._writes: dict[bytes, deque[int]] = defaultdict(deque)  # for each time that the file was open
        self._removals: dict[bytes, int] = defaultdict(int)
        for opening in wrote:
            name = opening.file.encode("utf-8", "surrogateescape")
            self._writes[name].append(opening.writes or _REFUSED)
            self._removals[name] += opening.removed

    def raised(self, name: bytes, mask: int) -> bool:
        """Return True if this event may be one of them; it is then counted off."""
        writes = self._writes[name]
        if mask == pyinotify.IN_DELETE and self._removals[name]:
            self._removals[name] -= 1
            return True
        if mask == pyinotify.IN_CLOSE_WRITE and writes:
            writes.popleft()  # its other MODIFYs were merged, and must not hide another program's
            return True
        while writes and writes[0] == _REFUSED:
            writes.popleft()  # its CLOSE_WRITE was merged with the one before
        if mask == pyinotify.IN_MODIFY and writes and writes[0]:
            writes[0] -= 1
            return True
        return False
