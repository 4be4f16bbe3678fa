"""Inotify events: the urgent repair first, then everything else that they call for.

``repair`` reads the events, and makes the urgent repair.  ``handle`` has one method for each kind of event, and charges
the throttle for events that called for nothing.
"""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from binfmtd.daemon.entries.fast_repair import FastRepairResult
from binfmtd.daemon.interpreters.probe_runner import ProbeRunner
from binfmtd.daemon.mount_search import MountSearch
from binfmtd.daemon.passes import Passes
from binfmtd.daemon.pause_control import PauseControl
from binfmtd.daemon.readiness import Readiness
from binfmtd.daemon.reload import Reload
from binfmtd.daemon.repairs.event_reader import EventReader
from binfmtd.daemon.repairs.instance_reconciler import InstanceReconciler
from binfmtd.daemon.repairs.interpreter_looks import InterpreterLooks
from binfmtd.daemon.repairs.seal_keeper import SealKeeper
from binfmtd.daemon.repairs.urgent_repairs import UrgentRepairs
from binfmtd.daemon.reporting.reporter import Reporter
from binfmtd.daemon.throttle import EventThrottle
from binfmtd.daemon.trigger import Trigger
from binfmtd.daemon.watches.events import PendingEvents, WatchKind
from binfmtd.daemon.watches.inotify import InotifyWatcher


class Repaired(NamedTuple):
    """The events of one turn of the loop, and the urgent repair."""

    at: float  # monotonic, in seconds: when they had been read
    events: PendingEvents | None = None  # None: there were none, or they are not to be handled yet
    result: FastRepairResult | None = None
    unrelated: bool = False  # there were only events of files that no part of the daemon watches


class EventHandler:
    """The reader of events, and what follows each kind of them."""

    def __init__(
        self,
        watch: InotifyWatcher,
        events: EventReader,
        urgent: UrgentRepairs,
        instance_reconciler: InstanceReconciler,
        throttle: EventThrottle,
        pauses: PauseControl,
        reload: Reload,
        looks: InterpreterLooks,
        passes: Passes,
        mount_search: MountSearch,
        seal: SealKeeper,
        probe_runner: ProbeRunner,
        report: Reporter,
        readiness: Readiness,
    ) -> None:
        self._watch = watch
        self._events = events
        self._urgent = urgent
        self._instance_reconciler = instance_reconciler
        self._throttle = throttle
        self._looks = looks
        self._passes = passes
        self._mount_search = mount_search
        self._seal = seal
        self._probe_runner = probe_runner
        self._report = report
        self._readiness = readiness
        self._on_change: Mapping[WatchKind, Callable[[], None]] = {
            WatchKind.PAUSES: pauses.read,
            WatchKind.PROBED: probe_runner.take_in,
            WatchKind.LOCK: readiness.changed,  # the thread that writes the status makes directory and lock again
            WatchKind.CONFIG: reload.begin_by_change,
        }

    def deadline(self, deadline: float) -> float:
        """Return ``deadline``, or earlier when events that were put off are to be handled."""
        return min(deadline, self._throttle.read_at) if self._events.pending else deadline

    def repair(self, read_at: float, cpu: float, *, readable: bool) -> Repaired:
        """Read the events if there are any, and repair what is urgent; before ``read_at`` put events off.

        ``cpu``: this thread's CPU time before, in seconds.
        """
        if readable:
            self._events.read()
        now = time.monotonic()
        if not self._events.pending:
            return Repaired(now, unrelated=readable and self._watch.saw_unrelated)
        if now < read_at:
            return Repaired(now)
        return Repaired(now, *self._urgent.repair(cpu))

    def handle(self, repaired: Repaired, cpu: float) -> None:
        """Do what else the events call for; ``cpu`` as in ``repair``."""
        wasted = repaired.unrelated
        if repaired.events is not None and repaired.result is not None:
            wasted = not self._handle(repaired.events, repaired.result)
        if wasted:
            self._throttle.charge_look(time.thread_time() - cpu, repaired.at)

    def _handle(self, events: PendingEvents, result: FastRepairResult) -> bool:
        """Return False if the events called for no write to the instance."""
        if events.watch_removed:  # first: the rest may fail (ImportError), and no later event would call for this
            self._watch_lost()
        if result.drifts:
            self._drift_found()
        self._files_changed(events)
        if events.overflow:
            self._events_lost()
        self._seal.check()  # another process could write only while it was open
        return result.repaired

    def _drift_found(self) -> None:
        self._probe_runner.want()
        self._readiness.changed()

    def _files_changed(self, events: PendingEvents) -> None:
        for kind, take_in in self._on_change.items():
            if kind in events.changed_files:
                take_in()
        if events.interpreters:
            self._looks.read(events)

    def _events_lost(self) -> None:
        self._instance_reconciler.read_all_next()
        self._passes.request(Trigger.OVERFLOW)

    def _watch_lost(self) -> None:
        if not self._mount_search.for_a_lost_one:
            self._report.watch_lost()
        self._mount_search.begin(Trigger.WATCH_LOST)
