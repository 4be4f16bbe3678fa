"""The pass over the attached instance: scan it, write what is due, and prepare the next urgent repairs.

``Reconciler`` does the same for a command's single pass.  Here other programs go on meanwhile: events are read before
each write, and entries that were touched during the scan are read again after it.
"""

import errno
import time
from contextlib import suppress

from binfmtd.daemon.assessment import ReconcileResult
from binfmtd.daemon.entries.fast_repair import FastRepair
from binfmtd.daemon.entries.reconciler import Reconciler
from binfmtd.daemon.repairs.event_reader import EventReader, TouchedEntries
from binfmtd.daemon.repairs.instance_access import InstanceAccess
from binfmtd.daemon.repairs.pass_gate import Force, PassGate, nothing
from binfmtd.daemon.repairs.repair_schedule import RepairSchedule
from binfmtd.daemon.repairs.urgent_repairs import UrgentRepairs
from binfmtd.daemon.reporting.reporter import Reporter
from binfmtd.daemon.trigger import Trigger
from binfmtd.daemon.watches.events import PendingEvents
from binfmtd.daemon.watches.instance_watch import InstanceWatch
from binfmtd.errors import BinfmtdError, MountError, WriteRefusedError
from binfmtd.kernel.steps import Steps, in_one_go
from binfmtd.model.drift import Act


class InstanceReconciler:
    """The maker of passes over the instance that the daemon is attached to."""

    def __init__(
        self,
        access: InstanceAccess,
        events: EventReader,
        touched: TouchedEntries,
        urgent: UrgentRepairs,
        reconciler: Reconciler,
        schedule: RepairSchedule,
        instance_watch: InstanceWatch,
        report: Reporter,
    ) -> None:
        self._access = access
        self._events = events
        self._touched = touched
        self._urgent = urgent
        self._reconciler = reconciler
        self._schedule = schedule
        self._instance_watch = instance_watch
        self._report = report
        self.writes_next = False  # True while a pass has ended its scan, and has not written yet

    @property
    def has_reconciled(self) -> bool:
        """True if a pass has been made."""
        return self._urgent.prepared

    def read_all_next(self) -> None:
        """Have the next pass read every entry: no event has named those that were touched."""
        self._touched.read_all()

    def instance_found(self, *, fresh: bool) -> None:
        """Take in that an instance is attached; the arguments as in UrgentRepairs."""
        self._urgent.instance_found(fresh=fresh)

    def assess(self) -> None:
        """Look at everything without writing, before the first pass: the entries may call for facts about this host."""
        with suppress(MountError), self._access.open() as (instance, _):  # the pass reports the reason of an error
            self._reconciler.assess(instance)

    def reconcile(
        self, trigger: Trigger, *, at_once: bool = False, force: Force = nothing
    ) -> Steps[ReconcileResult | None]:
        """Look at everything in slices, and then do what is due.

        The result is None if that was not possible: the reason has been reported.  Between two slices the caller may
        make urgent repairs.  ``at_once`` and ``force`` as in PassGate.
        Raises WriteRefusedError if this process may not write at all.
        """
        if self._access.mounted is None:
            return None
        touched, self.writes_next = self._touched.begin_scan(), False

        def read_queue() -> PendingEvents:
            self._events.leave_out(writer)
            self._events.read()
            return self._events.pending

        gate = PassGate(self._schedule, trigger, read_queue, self._events.throttled, at_once=at_once, force=force)
        try:
            with self._access.open() as (instance, writer):
                scan = self._reconciler.scan(instance, touched)
                if self._urgent.knows_instance:
                    scanned = yield from scan
                    self.writes_next = True
                    yield
                    self.writes_next = False
                else:
                    scanned = in_one_go(scan)
                if self._touched.during_scan is not None:
                    scanned = self._reconciler.rescan(instance, scanned, self._touched.during_scan)
                result = self._reconciler.reconcile(
                    instance,
                    writer,
                    scanned,
                    gate=gate,
                    unchanged=self._access.unchanged,
                    last=trigger is Trigger.STOP,
                )
        except GeneratorExit:  # the pass begins anew later
            self._touched.read_all()
            raise
        except MountError as error:
            self._lost(error, trigger)
            return None
        except WriteRefusedError as error:
            if not self._urgent.prepared and error.errno in (errno.EACCES, errno.EPERM):
                raise  # no write was ever allowed, and waiting will not change that
            return self._refused(error)
        self._take_in(result, at_once=at_once)
        return result

    def remove_owned(self) -> None:
        """Remove all entries that are ours (`on_stop = "remove"`); report the result."""
        if self._access.mounted is None:
            return
        try:
            with self._access.open() as (instance, writer):
                self._report.removed(*self._reconciler.remove_owned(instance, writer))
        except BinfmtdError as error:
            self._report.trouble(str(error))

    def _lost(self, error: MountError, trigger: Trigger) -> None:
        """Take in that the instance cannot be read."""
        self._touched.read_all()
        self._instance_watch.failed(error)
        if trigger is Trigger.WATCH_LOST or not self._urgent.prepared:
            # Another search has not helped, or never will: wait for the mount table, or `resync`.
            self._instance_watch.regard_as(None)
            self._schedule.forget()
            self._report.trouble(str(error))
        else:
            self._events.pending.watch_removed = True  # the loop reacts to it

    def _refused(self, error: WriteRefusedError) -> ReconcileResult | None:
        """Take in that nothing can be written; return what a sealed instance has, since the entries there serve."""
        self._touched.read_all()
        self._instance_watch.failed(error)
        self._report.trouble(self._instance_watch.problem or str(error))
        self._schedule.forget()
        with suppress(MountError), self._access.open() as (instance, _):
            assessment = self._report.status.assessment = self._reconciler.assess(instance)
            # A seal may last, so the start does not wait for its end.
            return ReconcileResult(assessment) if instance.mounted.sealed else None
        return None

    def _take_in(self, result: ReconcileResult, *, at_once: bool) -> None:
        """Prepare the next urgent repairs, and record what a pass found and did."""
        for error in self._reconciler.failed.values():
            self._instance_watch.failed(error)
        self._instance_watch.reconciled()
        assessment, schedule = result.assessment, self._schedule
        fast_repair = FastRepair(assessment, self._reconciler.states, schedule, self._access.unchanged)
        self._urgent.prepare(fast_repair)
        still_open = {action.entry: action.drift for action in assessment.plan.actions}
        registered = any(action.act in (Act.REGISTER, Act.REPLACE) for action in result.done)
        # A flush while events were not read: what this pass has registered is gone again, as is all else.
        unseen = registered and self._events.throttled() and fast_repair.nothing_left(still_open)
        schedule.record_reconcile(result, at_once=at_once, flushed=self._events.pending.flushed or unseen)
        if unseen:
            schedule.record_unseen_flush()
        if self._touched.all_next:  # something during the scan called for it, such as a broken seal
            schedule.look_later(time.monotonic())
