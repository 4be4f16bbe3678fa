"""The daemon's repairs on a simulated kernel and a simulated clock, so that a test covers days of contention.

UrgentRepairs, the reconcilers, RepairSchedule, FastRepair and PlanExecutor are the real ones.  The watch is simulated:
the methods that act as another program queue the events that inotify would report.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from unittest import mock

from binfmtd.daemon.assessment import ReconcileResult
from binfmtd.daemon.entries.entry_state import StateTable
from binfmtd.daemon.entries.reconciler import Reconciler
from binfmtd.daemon.interpreters.host_facts import HostFacts
from binfmtd.daemon.repairs import instance_access
from binfmtd.daemon.repairs.event_reader import EventReader, TouchedEntries
from binfmtd.daemon.repairs.instance_access import InstanceAccess
from binfmtd.daemon.repairs.instance_reconciler import InstanceReconciler
from binfmtd.daemon.repairs.repair_schedule import RepairSchedule
from binfmtd.daemon.repairs.urgent_repairs import UrgentRepairs
from binfmtd.daemon.reporting.reporter import Reporter
from binfmtd.daemon.state_files.foreign_entries import ForeignEntryStore
from binfmtd.daemon.state_files.ledger import Ledger
from binfmtd.daemon.throttle import EventThrottle
from binfmtd.daemon.trigger import Trigger
from binfmtd.daemon.watches.events import PendingEvents
from binfmtd.daemon.watches.inotify import InotifyWatcher
from binfmtd.daemon.watches.instance_watch import InstanceWatch
from binfmtd.host import facts as host
from binfmtd.kernel.steps import Steps
from binfmtd.model.config import Config, Policy, StandInPolicy
from binfmtd.model.desired import Facts, FileIdentity, InterpreterFacts
from binfmtd.model.drift import Act, Action
from binfmtd.model.handler import Handler, Registration
from support.simulated import SimulatedKernel, Through, declared

START = 1000.0  # seconds, monotonic
TICK = 1e-6  # seconds that pass with each reading of the clock
FILE = FileIdentity(1, 2, 3, 4, 5)


class _Interpreters:
    """Interpreters that all exist and never change."""

    def unchanged(self, _: str) -> bool:
        return True

    def same(self, _: str) -> bool:
        return True

    def changed(self, _: object) -> None: ...

    def can_run(self, _: str) -> bool:
        return True

    def read_head(self, _: str) -> bytes:
        return b""


class _Facts:
    interpreters = _Interpreters()
    header = host.native_header()
    heads = (b"\x7fELF" + bytes(252),)

    def gather(self, config: Config, _: object) -> Facts:
        paths = {path for spec in config.specs for path in spec.interpreters}
        return Facts({path: InterpreterFacts(FILE) for path in paths})


class RecordingReporter(Reporter):
    """A reporter that records repairs and contentions."""

    def __init__(self, states: StateTable, directory: Path) -> None:
        super().__init__(states, str(directory), "config")
        self.repairs: list[str] = []
        self.contentions: list[str] = []

    def count_repair(self, name: str, *_: object, **__: object) -> None:
        self.repairs.append(name)

    def contention_started(self, name: str) -> None:
        self.contentions.append(name)

    def contention_ended(self, name: str) -> None: ...

    def reacted(self, *_: object) -> None: ...


class SimulatedDaemon:
    """One daemon that has made its first pass, and methods that act as another program."""

    def __init__(
        self,
        handlers: Iterable[Handler],
        directory: Path,
        settle: float,
        restore: tuple[str, ...] = (),
        stand_ins: StandInPolicy = StandInPolicy.TEMPORARY,
    ) -> None:
        self.now = START
        self.kernel = SimulatedKernel()
        self.passes: list[list[Action]] = []  # what each pass did
        self.seen: list[list[str]] = []  # names, newest first, after each write of the daemon's
        self.refuses: set[str] = set()  # names that the kernel refuses to register
        self.meanwhile: list[Callable[[], None]] = []  # what other programs do while a repair waits for them
        self.while_scanned: list[Callable[[], None]] = []  # what other programs do while a pass scans all entries
        self.waits = 0
        config = Config(declared(handlers), Policy(settle=settle, restore=restore, stand_ins=stand_ins))
        facts = cast(HostFacts, _Facts())
        self.reconciler = Reconciler(config, facts, Ledger(None, "boot"), ForeignEntryStore(None, "boot"))
        self.reporter = RecordingReporter(self.reconciler.states, directory)
        self.throttle = EventThrottle(self.reconciler.states.contended)
        self.schedule = RepairSchedule(self.reconciler.states, settle, self.throttle, self.reporter)
        self._events: list[PendingEvents] = []
        instance_watch, touched = self._instance_watch(), TouchedEntries()
        self._reader = EventReader(self._watch(), facts, self.throttle)
        access = InstanceAccess(instance_watch, mock.Mock(seal=None), self._reader, facts)
        self._urgent = UrgentRepairs(
            access, self._reader, touched, self.reconciler, self.schedule, instance_watch, self.reporter
        )
        self._instance_reconciler = InstanceReconciler(
            access, self._reader, touched, self._urgent, self.reconciler, self.schedule, instance_watch, self.reporter
        )
        self.reconcile(Trigger.START, at_once=True)
        self.passes.clear()
        self.seen.clear()

    def _instance_watch(self) -> InstanceWatch:
        instance_watch = mock.create_autospec(InstanceWatch, instance=True)
        instance_watch.mounted = "there"
        return cast(InstanceWatch, instance_watch)

    def _watch(self) -> InotifyWatcher:
        def read(_: object, flushed: Callable[[], None]) -> PendingEvents:
            events = PendingEvents()
            for each in self._events:
                events.add(each)
            self._events.clear()
            if events.flushed and events.entries:
                flushed()
            return events

        def wait(seconds: float) -> None:
            self.waits += 1
            if self.meanwhile:
                self.meanwhile.pop(0)()
            else:
                self.now += seconds

        watch = mock.create_autospec(InotifyWatcher, instance=True)
        watch.read.side_effect = read
        watch.wait.side_effect = wait
        return cast(InotifyWatcher, watch)

    def monotonic(self) -> float:
        """Return the time, which advances by TICK with each call."""
        self.now += TICK
        return self.now

    @contextmanager
    def _at_the_kernel(self) -> Iterator[None]:
        opened = Through(self.kernel, self.refuses)
        with (
            mock.patch.object(instance_access, "Instance", return_value=opened),
            mock.patch.object(instance_access, "Writer", return_value=opened),
            mock.patch.object(time, "monotonic", self.monotonic),
        ):
            yield
        self.seen += [[entry.name for entry in state.entries] for state in opened.seen[1:]]

    def reconcile(self, trigger: Trigger, **options: Any) -> ReconcileResult | None:
        with self._at_the_kernel():
            result = self._in_slices(self._instance_reconciler.reconcile(trigger, **options))
            answer = self._urgent.repair_pending()
            if answer is not None:
                self._urgent.report(answer)
        self.passes.append([] if result is None else result.done)
        return result

    def _in_slices(self, steps: Steps[ReconcileResult | None]) -> ReconcileResult | None:
        """Make a pass as the loop does, with urgent repairs between two slices of its scan."""
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return cast(ReconcileResult | None, end.value)
            if self.while_scanned:
                self.while_scanned.pop(0)()
            if self._events and self.now >= self.throttle.read_at:
                self._reader.read()
                self._urgent.repair(time.thread_time())

    def names(self) -> list[str]:
        """Return the names of the entries, newest first."""
        return [entry.name for entry in self.kernel.entries]

    def written(self, name: str) -> int:
        """Return how often passes have registered this name."""
        registered = (Act.REGISTER, Act.REPLACE)
        return sum(action.entry == name and action.act in registered for done in self.passes for action in done)

    # Actions of another program

    def removes(self, name: str) -> None:
        """Remove an entry by name, if it exists."""
        if name in self.names():
            self.kernel.remove(name)
            self.touches(name)

    def registers(self, name: str, registration: Registration) -> None:
        """Register an entry; FileExistsError as from the kernel."""
        self.kernel.register(name, registration)
        self.stirs()

    def touches(self, name: str) -> None:
        """Write to an entry without changing it: only the event is queued."""
        events = PendingEvents([name])
        events.entries_written.add(name)
        self._events.append(events)

    def stirs(self, *, flushed: bool = False) -> None:
        """Write to `register`, or to `status`, without changing anything: only the event is queued."""
        self._events.append(PendingEvents(any_entry=True, flushed=flushed))

    def flushes(self) -> None:
        """Remove all entries at once."""
        self.kernel.entries.clear()
        self.stirs(flushed=True)

    # Time

    def react(self) -> None:
        """Let the daemon read the queued events and make the urgent repairs."""
        with self._at_the_kernel():
            self._reader.read()
            if self._reader.pending:
                self._urgent.repair(time.thread_time())

    def wait(self, seconds: float) -> None:
        """Advance the clock, and make each pass that falls due."""
        end = self.now + seconds
        self.react()
        while (due := self.schedule.deadline()) <= end:
            self.now = max(self.now, due) + 50 * TICK
            self.schedule.end_contentions(self.now)
            if self.schedule.anything_due(self.now):
                self.reconcile(Trigger.QUIET)
        self.now = max(self.now, end)
