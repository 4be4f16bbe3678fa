"""The wait of the daemon's loop on a simulated clock: inotify, the mount table, signals and results of threads."""

import math
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple
from unittest import mock

from binfmtd.daemon.background import Background
from binfmtd.daemon.watches.armed import Armed
from binfmtd.daemon.watches.events import PendingEvents
from binfmtd.daemon.watches.mount_watcher import MountWatcher
from support.simulated_time import SimulatedTime

SLICE = 1e-4  # seconds of CPU time that a slice of a scan takes, here one entry
WAKING = 5e-5  # seconds from an event or a deadline until the loop runs
MOUNTS, SIGNALS, INOTIFY = -11, -12, -13  # simulated descriptors
_MOST_TURNS = 20000


class SimulatedWatch:
    """The InotifyWatcher.  ``queue`` holds what other programs did; our own writes raise no event here."""

    def __init__(self, clock: SimulatedTime, device: Callable[[], int | None]) -> None:
        """``device`` returns the number of the instance that is mounted now."""
        self.descriptor: int | None = None
        self.exhausted: str | None = None
        self.incomplete: set[str] = set()
        self.saw_unrelated = False
        self.queue: list[PendingEvents] = []
        self.instance: int | None = None
        self.owners: set[str] = set()
        self.cost = 0.0  # seconds of CPU time that the next reading takes
        self.unrelated = False  # files that no owner watches have changed
        self._clock = clock
        self._device = device

    def open(self) -> int | None:
        if self.descriptor is not None:
            return None
        self.descriptor = INOTIFY
        return self.descriptor

    def watch_instance(self, _: str) -> bool:
        before, self.instance = self.instance, self._device()
        return self.instance not in (None, before)

    @property
    def watches_instance(self) -> bool:
        return self.instance is not None

    def arm_all(self, find: Callable[[], Mapping[str, Collection[str]]]) -> Armed:
        return Armed({1: {name for names in find().values() for name in names}}, ())

    def use(self, owner: str, armed: Armed) -> bool:
        (self.owners.add if any(armed.names.values()) else self.owners.discard)(owner)
        return False

    def tidy(self) -> None: ...

    def read(self, _: object = (), *, flushed: Callable[[], None]) -> PendingEvents:
        events = PendingEvents()
        for each in self.queue:
            events.add(each)
        self.queue.clear()
        self.saw_unrelated, self.unrelated = self.unrelated, False
        self._clock.cpu += self.cost
        self.cost = 0.0
        if events.flushed and events.entries and not events.entries_written and not events.changed_files:
            flushed()
        if events.watch_removed:
            self.instance = None
        return events

    def wait(self, seconds: float) -> None:
        self._clock.advance(self._clock.now + seconds, self.pending)

    def pending(self) -> bool:
        return bool(self.queue or self.unrelated)


class SimulatedMounts(MountWatcher):
    """The mount table: ``changed`` until the loop has polled it, once."""

    def __init__(self) -> None:
        self.due_at = math.inf
        self._rested_at = -math.inf
        self.descriptor = MOUNTS
        self.changed = False
        self._epoll = mock.Mock()

    def poll(self) -> bool:
        changed, self.changed = self.changed, False
        return changed


class SimulatedSignals:
    """The signals: each sets its flag, and is ``pending`` until the loop has drained them."""

    def __init__(self) -> None:
        self.stop = self._reload = False
        self.descriptor = SIGNALS
        self.pending = False

    def drain(self) -> None:
        self.pending = False

    def take_reload(self) -> bool:
        reload, self._reload = self._reload, False
        return reload

    def take_child(self) -> bool:
        return False

    def take_real_time_ended(self) -> bool:
        return False

    def raise_stop(self) -> None:
        self.stop = self.pending = True

    def raise_reload(self) -> None:
        self._reload = self.pending = True


class SimulatedBackground(Background):
    """The real one without threads: the clock's agenda does each piece of work, ``delay`` seconds after its start."""

    def __init__(self, clock: SimulatedTime, delay: float) -> None:
        super().__init__()
        self._clock = clock
        self._delay = delay

    def thread(self, work: Callable[[], None]) -> bool:
        self._clock.at(self._clock.now + self._delay, lambda: self._guarded(work))
        return True

    def wait(self, seconds: float) -> None:
        self._clock.advance(self._clock.now + seconds, self.ready)

    def ready(self) -> bool:
        return bool(self._results)


class Turn(NamedTuple):
    """One wait of the loop; the times are in seconds, monotonic."""

    began: float
    deadline: float
    ended: float
    woken: frozenset[int]


class SimulatedPoller:
    """The Poller.  ``spun`` is the longest run of turns that each found a deadline which had passed already.

    The deadline is minus infinity while a pass is under way: such a turn does not wait at all.
    """

    def __init__(
        self, clock: SimulatedTime, ready: Mapping[int, Callable[[], bool]], descriptors: Collection[int]
    ) -> None:
        """``ready``: descriptor -> a function that returns True if it is readable."""
        self.back_at = math.inf
        self.turns: list[Turn] = []
        self._clock = clock
        self._ready = ready
        self._always = list(descriptors)
        self._all = list(descriptors)
        self.spun = 0
        self._at_once = 0
        self._found: set[int] = set()

    def add(self, descriptor: int) -> None:
        self._all.append(descriptor)

    def until(self, deadline: float, read_at: float = -math.inf) -> dict[int, int]:
        now = self._clock.now
        descriptors = self._all
        if now < read_at:
            descriptors, deadline = self._always, min(deadline, read_at)
        self._clock.advance(deadline, lambda: bool(self._poll(descriptors)))
        woken, self._found = dict.fromkeys(self._poll(descriptors), 1), set()
        self._at_once = self._at_once + 1 if -math.inf < deadline <= now and not woken else 0
        self._clock.spend(WAKING, 0.0)
        self.turns.append(Turn(now, deadline, self._clock.now, frozenset(woken)))
        self.spun = max(self.spun, self._at_once)
        assert len(self.turns) <= _MOST_TURNS, "the loop spins"
        return woken

    def readable(self, read_at: float, but: int) -> bool:
        self._clock.spend(SLICE, SLICE)  # what the loop did since the last call
        descriptors = self._always if self._clock.now < read_at else self._all
        return any(descriptor != but for descriptor in self._poll(descriptors))

    def _poll(self, descriptors: Collection[int]) -> set[int]:
        """Return what is readable, and what an earlier poll has found since the last wait."""
        self._found.update(descriptor for descriptor in descriptors if self._ready[descriptor]())
        return self._found
