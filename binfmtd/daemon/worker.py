"""All looks at the instance and all writes to it: urgent repairs at once, the rest in passes.

Events are read before, during and after both.  Events that our own writes raised are left out: each write is remembered
until the queue has been read after it.
"""

import errno
import time
from collections.abc import Collection
from contextlib import suppress
from typing import NamedTuple

from binfmtd.daemon.assessment import ReconcileResult
from binfmtd.daemon.events import PendingEvents
from binfmtd.daemon.fast_repair import FastRepair, FastRepairResult
from binfmtd.daemon.inotify import InotifyWatcher
from binfmtd.daemon.instance_watch import InstanceWatch
from binfmtd.daemon.pass_gate import Force, PassGate, nothing
from binfmtd.daemon.reconciler import Reconciler
from binfmtd.daemon.repair_schedule import RepairSchedule
from binfmtd.daemon.reporter import Reporter
from binfmtd.daemon.sealing import Sealing
from binfmtd.daemon.throttle import EventThrottle
from binfmtd.daemon.trigger import Trigger
from binfmtd.errors import BinfmtdError, MountError, WriteRefusedError
from binfmtd.host.bounded import BoundedCalls
from binfmtd.kernel.instance import Instance
from binfmtd.kernel.steps import Steps, in_one_go
from binfmtd.kernel.writer import Writer, Wrote
from binfmtd.model.drift import Act
from binfmtd.model.plan import INSTANCE
from binfmtd.model.stand_in import stand_in_name

OPENING_AT_START = 2.0  # seconds that the first pass waits for an interpreter's file system
OPENING = 0.02  # seconds that a repair waits for it
_REGISTERS_AGAIN = 0.002  # seconds from a removal by name to a registration by the same program, at most


class Answer(NamedTuple):
    """An urgent repair that has been made, and has still to be reported; ``began`` (monotonic), in seconds."""

    look_for: PendingEvents
    events: PendingEvents
    reaction: FastRepairResult
    exec_breaking: list[str]
    began: float
    seconds: float


class Worker:
    """The reader and writer of the instance that the daemon is attached to."""

    def __init__(
        self,
        reconciler: Reconciler,
        instance_watch: InstanceWatch,
        sealing: Sealing,
        watch: InotifyWatcher,
        schedule: RepairSchedule,
        throttle: EventThrottle,
        report: Reporter,
    ) -> None:
        self.opens = BoundedCalls(OPENING_AT_START)  # of interpreters, by the kernel, whose file systems may hang
        self.events = PendingEvents()  # events that no repair has handled yet
        self.touched: set[str] | None = None  # entries to read again at the next pass; None: all
        self._reconciler = reconciler
        self._instance_watch = instance_watch
        self._sealing = sealing
        self._watch = watch
        self._schedule = schedule
        self._throttle = throttle
        self._report = report
        self._fast_repair: FastRepair | None = None
        self._waited: FastRepair | None = None
        self._wrote: list[Wrote] = []
        self._meanwhile: set[str] | None = None  # what was touched since the scan began; None: nothing can have changed
        self._is_another = False  # instance than the one of which `FastRepair` has the entries

    @property
    def has_looked(self) -> bool:
        """True if a pass has been made."""
        return self._fast_repair is not None

    def read_all_next(self) -> None:
        """Have the next pass read every entry: no event has named those that were touched."""
        self.touched = None

    def limit_opens(self, seconds: float) -> None:
        """Wait no longer than this for an interpreter's file system, from now on."""
        self.opens.seconds = seconds

    def assess(self) -> None:
        """Look at everything without writing, before the first pass: the entries may call for facts about this host."""
        if self._instance_watch.mounted is not None:
            # The pass reports the reason of an error.
            with suppress(MountError), Instance(self._instance_watch.mounted) as instance:
                self._reconciler.assess(instance)

    def read_events(self) -> None:
        """Read the events that other programs raised."""
        wrote, self._wrote = self._wrote, []
        events = self._watch.read(wrote, flushed=self._rush)
        if events.changed_files:  # first, so that no write lets F open a file that was exchanged a moment ago
            self._reconciler.facts.interpreters.changed(events.interpreters)
        self.events.add(events)

    def _rush(self) -> None:
        """Register the permanent stand-ins before the events are examined, which look like those of a flush."""
        if self._fast_repair is None or self._instance_watch.mounted is None or self._throttled():
            return
        cpu = time.thread_time()
        writer = Writer(self._instance_watch.mounted, seal=self._sealing.seal)
        with suppress(FileNotFoundError, WriteRefusedError):  # `react` comes next, and reports the reason
            try:
                self._fast_repair.rush(writer)
            finally:
                self._schedule.spent(time.thread_time() - cpu)
                self._wrote += writer.take_wrote()

    def forget_own_writes(self) -> None:
        """Forget our writes: the watch is new, and an event that resembles them is another program's."""
        self._wrote.clear()
        self._is_another = True

    def _throttled(self) -> bool:
        return time.monotonic() < self._throttle.read_at

    def _unchanged(self, path: str) -> bool:
        """Return True if an interpreter is still the judged file, by its events or, while none are read, by a look."""
        interpreters = self._reconciler.facts.interpreters
        return interpreters.unchanged(path) and (not self._throttled() or interpreters.same(path))

    def repair(self) -> tuple[PendingEvents, FastRepairResult]:
        """Repair what the events call for, then report it; return the events and the repair.

        The kernel comes first: stand-ins, drifts that one write ends, and entries that stop every exec.
        """
        events, self.events = self.events, PendingEvents()
        if self._fast_repair is not None and self._fast_repair is not self._waited:
            self._await_registration(events, self._fast_repair)
        answer = self._answer(events, events)
        self.report(answer)
        return events, answer.reaction

    def repair_pending(self) -> Answer | None:
        """Repair what another program did to entries during a pass; all other events are left for ``repair``.

        The caller reports the answer (``report``) after the pass, whose result does not contain it.
        """
        if self._throttled():
            return None  # else one pass would lead to the next
        self.read_events()
        if not (self.events.entries or self.events.any_entry):
            return None
        events, self.events = self.events, PendingEvents()
        answer = self._answer(events, events)
        self.events.add(events.beside_entries())
        return answer

    def check_identities(self, names: Collection[str] = ()) -> bool:
        """Look at these handlers, or at all, without any event, and repair; return True if something new was found.

        For the time in which the throttle keeps events unread, and for stand-ins that were withheld.
        """
        known = self._schedule.drifting()
        look_for = PendingEvents({*names, *map(stand_in_name, names)}, any_entry=not names)
        look_for.entries_written |= look_for.entries  # as if removed by name: no more events are to be read
        look_for.flushed = INSTANCE in names
        answer = self._answer(look_for, PendingEvents())
        self.report(answer)
        return bool(answer.reaction.drifts.keys() - known or answer.reaction.bridged or answer.reaction.kept)

    def _answer(self, look_for: PendingEvents, events: PendingEvents) -> Answer:
        began = time.monotonic()
        reaction, exec_breaking = self._repair(look_for)
        events.flushed |= look_for.flushed  # only the look has found it, if there were no events
        return Answer(look_for, events, reaction, exec_breaking, began, time.monotonic() - began)

    def report(self, answer: Answer) -> None:
        """Report an urgent repair.  The kernel has its handlers again: from here on nothing is urgent."""
        for name in answer.exec_breaking:
            self._report.exec_breaking_disabled(name)
        self._report.reacted(answer.reaction, answer.look_for, answer.seconds)
        self._schedule.record_fast_repair(answer.events, answer.reaction, answer.began, answer.began + answer.seconds)
        for name, refusal in answer.reaction.refused.items():
            self._reconciler.stand_in_refused(name, refusal)
            self._instance_watch.failed(refusal)
        if self.touched is not None:
            self.touched |= answer.events.entries
        if answer.look_for.entries or answer.look_for.any_entry:
            touched = {*answer.events.entries, *answer.reaction.drifts, *answer.reaction.fixed, *answer.reaction.kept}
            self._meanwhile = touched.union(map(stand_in_name, touched), self._meanwhile or ())

    def _repair(self, events: PendingEvents) -> tuple[FastRepairResult, list[str]]:
        reaction, exec_breaking = FastRepairResult(), list[str]()
        if (
            self._fast_repair is None
            or self._instance_watch.mounted is None
            or not (events.entries or events.any_entry)
        ):
            return reaction, exec_breaking
        try:
            with Instance(self._instance_watch.mounted) as instance:
                writer = Writer(instance, self.opens, self._sealing.seal)
                cpu = time.thread_time()
                try:
                    reaction = self._fast_repair.react(events, lambda: self._more(writer), instance, writer)
                    if reaction.bridged or reaction.kept or reaction.helped or INSTANCE in reaction.fixed:
                        self._schedule.spent(time.thread_time() - cpu)
                    stood_in = [*reaction.bridged, *reaction.kept]
                    self._reconciler.stood_in(stood_in, instance, self._unchanged)
                    self._reconciler.removed_by_name(events.entries_written, instance)
                    exec_breaking = self._reconciler.disable_exec_breaking(
                        instance, writer, events.entries, everything=events.any_entry
                    )
                finally:
                    self._wrote += writer.take_wrote()
        except MountError as error:
            events.watch_removed = True
            self._instance_watch.failed(error)
        except WriteRefusedError as error:
            self._instance_watch.failed(error)
            self._report.trouble(self._instance_watch.problem or str(error))
        return reaction, exec_breaking

    def _await_registration(self, events: PendingEvents, hot: FastRepair) -> None:
        """Wait up to 2 ms, once between two passes, for a program that removed an entry by name to register another.

        The new entry is newer than the stand-in, and serves until the stand-in is above it.  When the registration
        comes, little is left to do here.  Meanwhile no descriptor is open that would prevent the program from
        unmounting.

        A shell truncates `register` before it writes the line, and the event of that comes first.
        """
        until = time.monotonic() + _REGISTERS_AGAIN
        while hot.is_served(events) and not self._throttled() and (left := until - time.monotonic()) > 0:
            if events.any_entry and self._help(events, hot):
                return
            self._waited = hot
            self._watch.wait(left)
            self.read_events()
            events.add(self.events)
            self.events = PendingEvents()

    def _help(self, events: PendingEvents, hot: FastRepair) -> bool:
        """Have a helper serve if an entry was registered again; return True if so, or if no write is possible."""
        if self._instance_watch.mounted is None:
            return True
        cpu = time.thread_time()
        with suppress(MountError, WriteRefusedError), Instance(self._instance_watch.mounted) as instance:
            writer = Writer(instance, seal=self._sealing.seal)
            try:
                found = hot.help(events, instance, writer)
            finally:
                self._wrote += writer.take_wrote()
            if found:
                self._schedule.spent(time.thread_time() - cpu)
            return found
        return True

    def _more(self, writer: Writer) -> PendingEvents:
        """Return the events of other programs since the last reading; the caller has to handle them."""
        if not self._throttled():
            self._wrote += writer.take_wrote()
            self.read_events()
        more, self.events = self.events, PendingEvents()
        return more

    def _begin_scan(self) -> set[str] | None:
        """Return the entries to read again (None: all), and begin to record those that are touched from now on."""
        touched, self.touched, self._meanwhile = self.touched, set(), None
        return touched

    def reconcile(
        self, trigger: Trigger, *, at_once: bool = False, force: Force = nothing
    ) -> Steps[ReconcileResult | None]:
        """Look at everything in slices, and then do what is due.

        The result is None if that was not possible: the reason has been reported.  Between two slices the caller may
        make urgent repairs.  ``at_once`` and ``force`` as in PassGate.
        Raises WriteRefusedError if this process may not write at all.
        """
        if self._instance_watch.mounted is None:
            return None
        touched = self._begin_scan()

        def read_queue() -> PendingEvents:
            self._wrote += writer.take_wrote()
            self.read_events()
            return self.events

        gate = PassGate(self._schedule, trigger, read_queue, self._throttled, at_once=at_once, force=force)
        try:
            with Instance(self._instance_watch.mounted) as instance:
                writer = Writer(instance, self.opens, self._sealing.seal)
                try:
                    scan = self._reconciler.scan(instance, touched)
                    # `FastRepair` does not know the entries of another instance.
                    scanned = in_one_go(scan) if self._is_another else (yield from scan)
                    if self._meanwhile is not None:
                        scanned = self._reconciler.rescan(instance, scanned, self._meanwhile)
                    result = self._reconciler.reconcile(
                        instance,
                        writer,
                        scanned,
                        gate=gate,
                        unchanged=self._unchanged,
                        last=trigger is Trigger.STOP,
                    )
                finally:
                    self._wrote += writer.take_wrote()
        except MountError as error:
            self.touched = None
            self._instance_watch.failed(error)
            if trigger is Trigger.WATCH_LOST or not self.has_looked:
                # Another search has not helped, or never will: wait for the mount table, or `resync`.
                self._instance_watch.regard_as(None)
                self._schedule.forget()
                self._report.trouble(str(error))
            else:
                self.events.watch_removed = True  # the loop reacts to it
            return None
        except WriteRefusedError as error:
            if not self.has_looked and error.errno in (errno.EACCES, errno.EPERM):
                raise  # no write was ever allowed, and waiting will not change that
            self.touched = None
            self._instance_watch.failed(error)
            self._report.trouble(self._instance_watch.problem or str(error))
            self._schedule.forget()
            # Entries that serve go on serving.  A seal may last, so the start does not wait for its end.
            with suppress(MountError), Instance(self._instance_watch.mounted) as instance:
                assessment = self._report.status.assessment = self._reconciler.assess(instance)
                return ReconcileResult(assessment) if self._instance_watch.mounted.sealed else None
            return None
        self._take_in(result, at_once=at_once)
        return result

    def _take_in(self, result: ReconcileResult, *, at_once: bool) -> None:
        """Make the next `FastRepair`, and record what a pass found and did."""
        failed, schedule = self._reconciler.failed, self._schedule
        self._is_another = False
        for error in failed.values():
            self._instance_watch.failed(error)
        self._fast_repair = FastRepair(result.assessment, self._reconciler.states, schedule, self._unchanged)
        still_open = {action.entry: action.drift for action in result.assessment.plan.actions}
        registered = any(action.act in (Act.REGISTER, Act.REPLACE) for action in result.done)
        # A flush while events were not read: what this pass has registered is gone again, as is all else.
        unseen = registered and self._throttled() and self._fast_repair.nothing_left(still_open)
        schedule.record_reconcile(result, at_once=at_once, flushed=self.events.flushed or unseen)
        if unseen:
            schedule.record_unseen_flush()

    def remove_owned(self) -> None:
        """Remove all entries that are ours (`on_stop = "remove"`); report the result."""
        if self._instance_watch.mounted is None:
            return
        try:
            with Instance(self._instance_watch.mounted) as instance:
                writer = Writer(instance, seal=self._sealing.seal)
                self._report.removed(*self._reconciler.remove_owned(instance, writer))
        except BinfmtdError as error:
            self._report.trouble(str(error))
