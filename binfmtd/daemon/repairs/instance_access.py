"""The attached instance, opened for a repair or a pass, so that each write is known to the reader of events."""

from collections.abc import Iterator
from contextlib import contextmanager

from binfmtd.daemon.interpreters.host_facts import HostFacts
from binfmtd.daemon.repairs.event_reader import EventReader
from binfmtd.daemon.repairs.sealing import Sealing
from binfmtd.daemon.watches.instance_watch import InstanceWatch
from binfmtd.errors import MountError
from binfmtd.host.bounded import BoundedCalls
from binfmtd.kernel.instance import Instance
from binfmtd.kernel.mount import Mounted
from binfmtd.kernel.writer import Writer

_OPENING_AT_START = 2.0  # seconds that the first pass waits for an interpreter's file system
_OPENING = 0.02  # seconds that a repair waits for it


class InstanceAccess:
    """The way to the instance that the daemon is attached to, if any."""

    def __init__(self, instance_watch: InstanceWatch, sealing: Sealing, events: EventReader, facts: HostFacts) -> None:
        self.opens = BoundedCalls(_OPENING_AT_START)  # of interpreters, by the kernel, whose file systems may hang
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
        mounted = self.mounted
        if mounted is None:
            raise MountError("binfmt_misc is not mounted")
        with Instance(mounted) as instance:
            writer = Writer(instance, self.opens, self._sealing.seal)
            try:
                yield instance, writer
            finally:
                self._events.leave_out(writer)

    @contextmanager
    def write_by_path(self) -> Iterator[Writer | None]:
        """Write without opening the directory, which is faster for a single file; None if there is no instance."""
        if self.mounted is None:
            yield None
            return
        writer = Writer(self.mounted, seal=self._sealing.seal)
        try:
            yield writer
        finally:
            self._events.leave_out(writer)

    def unchanged(self, path: str) -> bool:
        """Return True if an interpreter is still the judged file, by its events or, while none are read, by a look."""
        interpreters = self._facts.interpreters
        return interpreters.unchanged(path) and (not self._events.throttled() or interpreters.same(path))
