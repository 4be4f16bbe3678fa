"""The reader of inotify, and the entries that other programs have touched.

Our own writes raise events, too.  Each write is remembered until the queue has been read after it, and its events are
left out.  Events that are read stay ``pending`` until a repair takes them.
"""

import time
from collections.abc import Callable, Collection

from binfmtd.daemon.interpreters.host_facts import HostFacts
from binfmtd.daemon.throttle import EventThrottle
from binfmtd.daemon.watches.events import PendingEvents
from binfmtd.daemon.watches.inotify import InotifyWatcher
from binfmtd.kernel.writer import Writer, Wrote
from binfmtd.model.stand_in import stand_in_name


def _nothing() -> None:
    """Do nothing about a flush."""


class EventReader:
    """The events that no repair has handled yet."""

    def __init__(self, watch: InotifyWatcher, facts: HostFacts, throttle: EventThrottle) -> None:
        self.pending = PendingEvents()
        # Called before events that look like those of a flush are examined.
        self.on_flush: Callable[[], None] = _nothing
        self._watch = watch
        self._facts = facts
        self._throttle = throttle
        self._wrote: list[Wrote] = []

    def throttled(self) -> bool:
        """Return True while the queue stays unread."""
        return time.monotonic() < self._throttle.read_at

    def read(self) -> None:
        """Read the events that other programs raised."""
        wrote, self._wrote = self._wrote, []
        events = self._watch.read(wrote, flushed=self.on_flush)
        if events.changed_files:  # first, so that no write lets F open a file that was exchanged a moment ago
            self._facts.interpreters.changed(events.interpreters)
        if self.pending:
            self.pending.add(events)
        else:
            self.pending = events

    def read_within(self, seconds: float) -> None:
        """Wait for events, ``seconds`` at most, and read them."""
        self._watch.wait(seconds)
        self.read()

    def take(self) -> PendingEvents:
        """Return the pending events, which the caller has to handle."""
        events, self.pending = self.pending, PendingEvents()
        return events

    def leave_out(self, writer: Writer) -> None:
        """Leave out the events that these writes raise."""
        self._wrote += writer.take_wrote()

    def forget_own_writes(self) -> None:
        """Forget our writes: the watch is new, and an event that resembles them is another program's."""
        self._wrote.clear()


class TouchedEntries:
    """The entries that have to be read again although their inode numbers are the same."""

    def __init__(self) -> None:
        self._names: set[str] | None = None  # since the begin of the last scan; None: all
        self._during_scan: set[str] | None = None

    @property
    def all_next(self) -> bool:
        """True if the next scan reads every entry."""
        return self._names is None

    def read_all(self) -> None:
        """Have the next scan read every entry: no event has named those that were touched."""
        self._names = None

    def add(self, by_others: Collection[str], by_us: Collection[str]) -> None:
        """Add what an urgent repair has found and done; ``by_us``: handlers, of which the stand-in may be new, too."""
        if self._names is not None:
            self._names.update(by_others)
        self._during_scan = {*by_others, *by_us, *map(stand_in_name, by_us), *(self._during_scan or ())}

    def begin_scan(self) -> set[str] | None:
        """Return the entries to read again (None: all), and begin to record those that are touched from now on."""
        touched, self._names, self._during_scan = self._names, set(), None
        return touched

    @property
    def during_scan(self) -> set[str] | None:
        """The entries that were touched since the scan began; None if no entry can have changed."""
        return self._during_scan
