"""The attached instance, opened for a repair or a pass, so that each write is known to the reader of events."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress

from binfmtd.daemon.interpreters.host_facts import HostFacts
from binfmtd.daemon.repairs.event_reader import EventReader
from binfmtd.daemon.repairs.sealing import Sealing
from binfmtd.daemon.watches.instance_watch import InstanceWatch
from binfmtd.errors import MountError
from binfmtd.host.bounded import BoundedCalls
from binfmtd.kernel.instance import Instance
from binfmtd.kernel.mount import Mounted, does_not_answer
from binfmtd.kernel.writer import Writer

_OPENING_AT_START = 2.0  # seconds that the first pass waits for an interpreter's file system
_OPENING = 0.02  # seconds that a repair waits for it
_REACHED = 0.02  # seconds that a repair waits for an automount


class InstanceAccess:
    """The way to the instance that the daemon is attached to, if any."""

    def __init__(self, instance_watch: InstanceWatch, sealing: Sealing, events: EventReader, facts: HostFacts) -> None:
        self.opens = BoundedCalls(_OPENING_AT_START)  # of interpreters, by the kernel, whose file systems may hang
        self._reaches = BoundedCalls(_REACHED)
        self._instance_watch = instance_watch
        self._sealing = sealing
        self._events = events
        self._facts = facts

    @property
    def mounted(self) -> Mounted | None:
        """The instance; None if there is none."""
        return self._instance_watch.mounted

    def end_start(self) -> None:
        """Wait less long for interpreters' file systems from now on: handlers are kept."""
        self.opens.seconds = _OPENING

    @contextmanager
    def open(self) -> Iterator[tuple[Instance, Writer]]:
        """Open the instance.  Raises MountError, also if there is none."""
        if self.mounted is None:
            raise MountError("binfmt_misc is not mounted")
        with self._opened(self.mounted) as instance:
            writer = Writer(instance, self.opens, self._sealing.seal)
            try:
                yield instance, writer
            finally:
                self._events.leave_out(writer)

    @contextmanager
    def write_by_path(self) -> Iterator[Writer | None]:
        """Write without opening the directory, which is faster for a single file; None if there is no instance."""
        target = self._to_write()
        if target is None:
            yield None
            return
        with target as through:
            writer = Writer(through, seal=self._sealing.seal)
            try:
                yield writer
            finally:
                self._events.leave_out(writer)

    def _to_write(self) -> AbstractContextManager[Instance | Mounted] | None:
        if self.mounted is None or not self._instance_watch.searching:
            return None if self.mounted is None else nullcontext(self.mounted)
        with suppress(MountError):
            return self._opened(self.mounted)
        return None

    def _opened(self, mounted: Mounted) -> Instance:
        """Open it; in a thread while a search is under way, which may wait there for an automount.  Raises MountError.

        A path that leads to a directory where another thread waits for an automount waits with it.
        """
        if not self._instance_watch.searching:
            return Instance(mounted)
        # None: the time limit has passed
        opened = self._reaches.call(mounted.directory, lambda: _open(mounted), None, late=_close)
        if opened is None:
            raise does_not_answer(mounted.directory)
        return opened

    def unchanged(self, path: str) -> bool:
        """Return True if an interpreter is still the judged file, by its events or, while none are read, by a look."""
        interpreters = self._facts.interpreters
        return interpreters.unchanged(path) and (not self._events.throttled() or interpreters.same(path))


def _open(mounted: Mounted) -> Instance | None:
    return Instance(mounted)


def _close(instance: Instance | None) -> None:
    if instance is not None:
        instance.close()
