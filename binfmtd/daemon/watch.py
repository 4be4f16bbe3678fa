"""inotify, by pyinotify: who touched the instance, and whether an interpreter or the config changed.

What a watch on binfmt_misc's directory reports (measured, see docs/kernel.md): registering names only ``register``
(OPEN, MODIFY unless refused, CLOSE_WRITE); enabling, disabling and removing name the entry, and from 6.18 on removing
adds DELETE; everything at once names ``status``, after the DELETE of each.  Equal neighbouring events are merged, and
the last mount's end reports UNMOUNT and IGNORED.  So an event says "look", never "what".

Of pyinotify the watch manager is used; its notifier would cost three times as much on the way to a repair as reading
its descriptor here.
"""

import fcntl
import logging
import os
import select
import struct
import termios
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import pyinotify

from binfmtd.daemon.heard import Heard
from binfmtd.files.chain import ANY_NAME, ITSELF
from binfmtd.formats.line import to_text
from binfmtd.kernel.write import Wrote

# pyinotify adds a handler of its own to stderr when it is imported, and reports errors there that it also returns.
logging.getLogger("pyinotify").handlers.clear()
logging.getLogger("pyinotify").propagate = False
logging.getLogger("pyinotify").disabled = True

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
_STATE_FILES = frozenset({"pauses", "probed"})
_KINDS = _STATE_FILES | {"config"}
_ENDS = (pyinotify.IN_UNMOUNT, pyinotify.IN_IGNORED)
_GONE = pyinotify.IN_UNMOUNT | pyinotify.IN_IGNORED
_HEAD = struct.Struct("iI")
_EVENT = struct.Struct("iIII")
_LENGTH = struct.Struct("I")
_LENGTH_AT = 12  # the last of an event's four numbers says how long its name is
_BUFFER_BYTES = 8192  # a flush of 33 handlers reports 3 KiB; to allocate a larger buffer takes longer
_MOST_BYTES = 131072  # some 4,000 events; a flush of 1,000 entries makes half of that
_STATUS = b"status\0"  # the file that a flush is written to
_FEW_BYTES = (
    4 * 32
)  # before 6.18 a flush reports nothing else, and cannot be told from the instance's being switched off
_REST_BYTES = 65536
_WALKS = 3  # of paths whose directories are exchanged while they are walked
_REFUSED = -1
_LOST = -1  # IN_Q_OVERFLOW is of no watch
_LARGEST_EVENT = _EVENT.size + 256  # a name has up to 255 bytes and a NUL


class Armed(NamedTuple):
    """Names to watch by watch descriptor, for ``use``, and directories that can never be watched."""

    names: Mapping[int, Collection[str]]
    unwatched: tuple[str, ...]


class Watch:
    """One inotify instance for everything.

    Where the kernel has no instance or no watch left, ``exhausted`` says so, with the remedy; ``open`` tries anew.
    """

    def __init__(self) -> None:
        self.descriptor: int | None = None
        self.exhausted: str | None = None
        self.nobodys = False  # the last reading met files beside interpreters and the config, which nobody waits for
        self._manager: pyinotify.WatchManager | None = None
        self._instance: int | None = None
        self.unknown = 0  # events of directories that were armed, but not in use yet
        self._files: dict[int, dict[str, set[str]]] = {}  # watch descriptor -> name -> owners
        self._names: dict[str, Mapping[int, Collection[str]]] = {}  # owner -> watch descriptor -> names
        self._unused: set[int] = set()  # watch descriptors
        self._others_write: set[int] = set()  # not the state directory, where we do

    def open(self) -> int | None:
        """Begin to watch; returns the descriptor if there was none before."""
        if self._manager is not None:
            return None
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

    def watch_instance(self, directory: str) -> bool:
        """Arm the watch on a mounted instance; True if it is another one than before (or the watch had been lost).

        The kernel answers with the same watch descriptor for the same directory of the same instance.
        """
        before = self._instance
        if self._manager is not None:
            self.exhausted = None
        try:
            self._instance = self._add(directory, _INSTANCE_MASK)
        except OSError as error:
            self._instance = None
            self.exhausted = self.exhausted or f"{directory}: no inotify watch: {error}"
        if before is not None and before != self._instance:
            self._remove(before)
        return self._instance not in (None, before)

    def forget_instance(self) -> None:
        """Drop the watch on an instance that cannot be reached any more."""
        if self._instance is not None:
            self._remove(self._instance)
            self._instance = None

    def arm(self, directory: str, names: Collection[str]) -> int:
        """Begin to watch names (or ANY_NAME, or ITSELF) in a directory; returns its watch descriptor, for ``use``.

        May be called in any thread: looking the directory up blocks where its file system does not answer.
        Raises OSError.
        """
        return self._add(directory, _DIRECTORY_MASK if set(names) == {ITSELF} else _FILE_MASK)

    def arm_all(self, find: Callable[[], Mapping[str, Collection[str]]]) -> Armed:
        """Arm the directories that ``find`` returns, until it returns the same again: they may be exchanged meanwhile.

        Like ``arm``, for any thread.
        """
        directories: Mapping[str, Collection[str]] = {}
        armed = Armed({}, ())
        for _ in range(_WALKS):
            before, directories = directories, find()
            if directories == before:
                break
            names: dict[int, set[str]] = {}
            failed = []
            for directory, wanted in directories.items():
                try:
                    # Two paths may be one directory: the kernel then answers with one descriptor.
                    names.setdefault(self.arm(directory, wanted), set()).update(wanted)
                except OSError:
                    failed.append(directory)
            armed = Armed(names, () if self.exhausted else tuple(failed))
        return armed

    def use(self, owner: str, names: Mapping[int, Collection[str]]) -> None:
        """Report events on these names of armed directories under ``owner``, and on no others any more.

        An owner is a kind of file, such as ``config``, or the absolute path of an interpreter.
        """
        before = self._names.pop(owner, {})
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
                self._unused.add(descriptor)

    def tidy(self) -> None:
        """Stop watching directories that no owner uses; not while a thread may have armed one for its use."""
        for descriptor in self._unused - self._files.keys() - {self._instance}:
            self._remove(descriptor)
        self._unused.clear()

    def watch_files(self, owner: str, directories: Mapping[str, Collection[str]]) -> list[str]:
        """Arm these directories and use these names in them; returns the directories that can never be watched."""
        armed = self.arm_all(lambda: directories)
        self.use(owner, armed.names)
        self.tidy()
        return list(armed.unwatched)

    def read(
        self, wrote: Sequence[Wrote] = (), heard: Heard | None = None, flushed: Callable[[], None] = lambda: None
    ) -> Heard:
        """Read all pending events, and leave out those that our own writes since the last call must have raised.

        What others did is added to ``heard``, or told alone.  ``flushed`` is called before the events are looked at one
        by one, if they look like those of a flush and no other file has changed.
        Our events are in the queue when the write returns, so what is not found by now will not come.
        """
        data = self._read()
        begins = self._first_removals(data)
        if (begins or (_STATUS in data and len(data) > _FEW_BYTES)) and self._only_of_instance(data):
            flushed()
        heard = Heard() if heard is None else heard
        self.nobodys = False
        own = _Own(wrote) if wrote else None
        if len(data) > _MOST_BYTES:
            self._hear_storm(heard, data)
            return heard
        offset, end = 0, len(data)
        while offset < end:
            descriptor, mask, _, length = _EVENT.unpack_from(data, offset)
            offset += _EVENT.size + length
            name = data[offset - length : offset].rstrip(b"\0")
            if descriptor == self._instance:
                self._hear_instance(heard, own, mask, name)
            elif mask & pyinotify.IN_Q_OVERFLOW:
                self._hear_anything(heard)
            elif descriptor in self._files:
                names = self._files[descriptor]
                found = set(names.get(to_text(name), ())) if name else set().union(*names.values())
                if not name.startswith(b"."):  # which no directory of configs is asked for: editors' and our own locks
                    found |= names.get(ANY_NAME, set())
                self.nobodys |= not found and descriptor in self._others_write
                heard.files |= found
                heard.arrived |= bool(found - _KINDS and mask & _ARRIVALS)
            elif not mask & pyinotify.IN_IGNORED:
                self.unknown += 1
        # Of two that are removed by name at the same time, both removals may come before both writes.
        if begins and begins <= heard.names and not begins & heard.written:
            heard.everything = heard.flushed = True
        return heard

    def wait(self, seconds: float) -> None:
        """Wait until an event is pending, for so long at most."""
        if self.descriptor is not None:
            select.select([self.descriptor], [], [], seconds)

    def _first_removals(self, data: bytes) -> set[str]:
        """Return the first two entries that are named, if both were removed with no write before, else nothing.

        From Linux 6.18 on the kernel reports a flush in this way as soon as it begins, and lets a registration wait
        until the flush has ended.
        """
        if not data or self._instance is None:
            return set()
        removal = _HEAD.pack(self._instance, pyinotify.IN_DELETE)
        second = _EVENT.size + _LENGTH.unpack_from(data, _LENGTH_AT)[0]
        if not (data.startswith(removal) and data.startswith(removal, second)):
            return set()
        end = second + _EVENT.size + _LENGTH.unpack_from(data, second + _LENGTH_AT)[0]
        names = (data[_EVENT.size : second], data[second + _EVENT.size : end])
        return {to_text(name.rstrip(b"\0")) for name in names}

    def _only_of_instance(self, data: bytes) -> bool:
        """Tell if these are surely events of binfmt_misc alone.

        Events are a multiple of 16 bytes long (inotify(7)), and begin with the watch's descriptor.
        """
        others = {_LOST, *self._files} - {self._instance}
        return others.isdisjoint(memoryview(data).cast("i")[::4])

    def _hear_anything(self, heard: Heard) -> None:
        heard.overflow = heard.everything = True
        heard.files.update(self._names)

    def _hear_storm(self, heard: Heard, data: bytes) -> None:
        """Take thousands of events for an overflow: to read each would take longer than to look at everything.

        Of files only those may have changed in whose directories something happened.  Events are a multiple of 16 bytes
        long (inotify(7)), and begin with the watch's descriptor; a part of a name may pass for one.
        """
        heard.overflow = heard.everything = True
        descriptors = set(memoryview(data).cast("i")[::4])
        if _LOST in descriptors:
            self._hear_anything(heard)
        for descriptor in descriptors & self._files.keys():
            heard.files.update(*self._files[descriptor].values())
        heard.flushed |= b"status\0" in data
        if self._instance is not None and any(_HEAD.pack(self._instance, gone) in data for gone in _ENDS):
            heard.lost = True
            self.forget_instance()

    def _hear_instance(self, heard: Heard, own: "_Own | None", mask: int, name: bytes) -> None:
        if mask & _GONE:
            heard.lost = heard.everything = True
            self.forget_instance()
        elif own is not None and own.raised(name, mask):
            pass
        elif name == b"register":
            heard.everything = True
        elif name == b"status":
            heard.everything = heard.flushed = True
        else:
            entry = to_text(name)
            heard.names.add(entry)
            if mask & ~pyinotify.IN_DELETE:
                heard.written.add(entry)

    def _add(self, directory: str, mask: int) -> int:
        if self._manager is None:
            raise OSError(self.exhausted)
        try:
            # Added to what is watched there: an interpreter may be said to lie in the instance's own directory.
            (descriptor,) = self._manager.add_watch(directory, mask | pyinotify.IN_MASK_ADD, quiet=False).values()
        except pyinotify.WatchManagerError as error:
            if "ENOSPC" in str(error):  # pyinotify keeps the number to itself
                self.exhausted = "no inotify watch is left: raise fs.inotify.max_user_watches with sysctl"
            raise OSError(str(error)) from None
        except UnicodeEncodeError:
            raise OSError(f"{directory!r}: pyinotify takes only names in UTF-8") from None
        return int(descriptor)

    def _remove(self, descriptor: int) -> None:
        if self._manager is not None:
            self._manager.rm_watch(descriptor)
            if self._manager.get_watch(descriptor) is not None:  # the kernel had dropped it: pyinotify keeps it then
                self._manager.del_watch(descriptor)

    def _read(self) -> bytes:
        """All that is pending at this moment, and no more: others may write faster than we read."""
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
            parts.append(os.read(self.descriptor, _REST_BYTES))  # nobody else reads: what was pending still is
            pending -= len(parts[-1])
        return b"".join(parts)


class _Own:
    """Which events our own writes must have raised; equal neighbours the kernel merges, so there may be fewer."""

    def __init__(self, wrote: Iterable[Wrote]) -> None:
        self._writes: dict[bytes, deque[int]] = defaultdict(deque)  # of each time that a file was open
        self._removals: dict[bytes, int] = defaultdict(int)
        for each in wrote:
            name = each.file.encode("utf-8", "surrogateescape")
            self._writes[name].append(each.writes or _REFUSED)
            self._removals[name] += each.removed

    def raised(self, name: bytes, mask: int) -> bool:
        """Whether this event may be one of them; then it is accounted for."""
        writes = self._writes[name]
        if mask == pyinotify.IN_DELETE and self._removals[name]:
            self._removals[name] -= 1
            return True
        if mask == pyinotify.IN_CLOSE_WRITE and writes:
            writes.popleft()  # what is left of its writes was merged, and excuses nobody else's
            return True
        while writes and writes[0] == _REFUSED:
            writes.popleft()  # its CLOSE_WRITE was merged with the one before
        if mask == pyinotify.IN_MODIFY and writes and writes[0]:
            writes[0] -= 1
            return True
        return False
