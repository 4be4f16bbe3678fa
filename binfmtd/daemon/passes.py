"""Passes: when one may be made, and what follows it.

A pass waits for looks at interpreters that may have changed (``request``).  It begins with a scan of all entries.  The
loop makes one slice of it after another (``step``), and makes urgent repairs between them.  The last step writes what
is due.  After it come the urgent repairs of what other programs did meanwhile, then the reports.

Example: an entry was removed, and its name is quiet now.  ``begin_due`` begins a pass with the trigger QUIET.  If an
interpreter's file has changed, a thread looks at that file first, and ``make_waiting`` begins the pass.
"""

import time
from collections.abc import Callable
from functools import partial

from binfmtd.daemon.assessment import ReconcileResult
from binfmtd.daemon.background import Background
from binfmtd.daemon.entries.reconciler import Reconciler
from binfmtd.daemon.interpreters.interpreter_files import InterpreterFiles
from binfmtd.daemon.interpreters.probe_runner import ProbeRunner
from binfmtd.daemon.readiness import Readiness
from binfmtd.daemon.repairs.event_reader import EventReader
from binfmtd.daemon.repairs.instance_reconciler import InstanceReconciler
from binfmtd.daemon.repairs.interpreter_looks import InterpreterLooks
from binfmtd.daemon.repairs.pass_gate import Force, nothing
from binfmtd.daemon.repairs.repair_schedule import RepairSchedule
from binfmtd.daemon.repairs.seal_keeper import SealKeeper
from binfmtd.daemon.repairs.urgent_repairs import UrgentRepairs
from binfmtd.daemon.reporting.reporter import Reporter
from binfmtd.daemon.state_files.boot_persistence import BootPersistence
from binfmtd.daemon.throttle import EventThrottle
from binfmtd.daemon.trigger import Trigger
from binfmtd.daemon.watches.instance_watch import InstanceWatch
from binfmtd.host.scheduling import ordinary_time, urgent_time
from binfmtd.kernel.steps import Steps

_PERSISTENT = "persistent"  # key of the work in the background
_NEVER = float("inf")


class Passes:
    """The maker of passes: at most one is under way, and at most one waits for it or for interpreters."""

    def __init__(
        self,
        events: EventReader,
        urgent: UrgentRepairs,
        instance_reconciler: InstanceReconciler,
        reconciler: Reconciler,
        schedule: RepairSchedule,
        throttle: EventThrottle,
        instance_watch: InstanceWatch,
        seal: SealKeeper,
        interpreters: InterpreterFiles,
        looks: InterpreterLooks,
        report: Reporter,
        readiness: Readiness,
        probe_runner: ProbeRunner,
        boot_persistence: BootPersistence,
        background: Background,
    ) -> None:
        self._events = events
        self._urgent = urgent
        self._instance_reconciler = instance_reconciler
        self._reconciler = reconciler
        self._schedule = schedule
        self._throttle = throttle
        self._instance_watch = instance_watch
        self._seal = seal
        self._interpreters = interpreters
        self._looks = looks
        self._report = report
        self._readiness = readiness
        self._probe_runner = probe_runner
        self._boot_persistence = boot_persistence
        self._background = background
        self._waiting: tuple[Trigger, bool] | None = None  # arguments of the pass that waits
        self._under_way: Steps[None] | None = None
        self._then: Callable[[], None] | None = None  # to be called after the pass that is under way
        self._spent = 0.0  # seconds of CPU time that its earlier steps have taken
        self._step_began = 0.0  # CPU time of this thread, in seconds
        self._again: Callable[[], Steps[None]] | None = None  # begins the pass that is under way anew
        self._lost = False  # the instance cannot be opened, and a search for it is under way or comes next

    @property
    def due_at(self) -> float:
        """The time of the next ``begin_due`` (monotonic, in seconds).

        Infinity while a pass is under way or waits for interpreters, or the search for a lost instance has not ended.
        """
        if self.under_way or self._lost or (self._waiting and self._interpreters.looking):
            return _NEVER
        return -_NEVER if self._waiting else self._schedule.deadline()

    @property
    def under_way(self) -> bool:
        """True if ``step`` has anything to do."""
        return self._under_way is not None

    @property
    def writes_next(self) -> bool:
        """True if the next step is the last one of the pass that is under way, which writes and reports."""
        return self.under_way and self._instance_reconciler.writes_next

    def instance_lost(self) -> None:
        """Settle nothing before the next search has ended: until then each pass would fail, and be due again."""
        self._lost = True

    def instance_searched(self) -> None:
        """Settle again what is due: a search has ended."""
        self._lost = False

    def begin_due(self, now: float) -> None:
        """End backoffs, and begin the pass that waits, or one that writes what may be written now."""
        if self._schedule.end_contentions(now):
            self._readiness.changed()
        if self._waiting is None and self._schedule.anything_due(now):
            self.request(Trigger.QUIET)
        if self._waiting is not None and not self.under_way:
            if self._interpreters.out_of_date:
                self._interpreters.look()
            if not self._interpreters.looking:
                (trigger, at_once), self._waiting = self._waiting, None
                self.make(trigger, at_once=at_once)

    def request(self, trigger: Trigger, *, at_once: bool = False) -> None:
        """Have a pass begin when the interpreters that may have changed have been looked at.

        It comes after the pass that is under way, and after what else is due by then.
        """
        if self._instance_watch.mounted is None:
            self._schedule.forget()  # open drifts cannot be repaired, and would be due for ever
            return
        self._waiting = (trigger, at_once or bool(self._waiting and self._waiting[1]))

    def cancel_waiting(self) -> None:
        """Forget the pass that waits for interpreters: another pass comes before."""
        self._waiting = None

    def make_waiting(self, *, news: bool) -> bool:
        """Make the pass that waited for interpreters; return False if none did.  ``news``: some files have changed."""
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return False
        self._reconciler.retry(interpreters=news)
        self.make(waiting[0], at_once=waiting[1])
        return True

    def bridge_upgraded(self, then: Callable[[], None] | None = None) -> None:
        """Register stand-ins for what is stale or missing, after a look at interpreters; the rest waits for quiet."""
        if self._urgent.prepared:
            self.make(Trigger.INTERPRETER, then=then)
        elif then is not None:
            then()

    def make(
        self,
        trigger: Trigger,
        *,
        at_once: bool = False,
        force: Force = nothing,
        then: Callable[[], None] | None = None,
    ) -> None:
        """Begin a pass; ``then`` is called after it.  ``at_once`` and ``force`` as in PassGate."""
        if self.under_way:  # a guard: results and deadlines wait for its end, so there is none
            self.finish()
        self._then, self._spent = then, 0.0
        self._again = partial(self._pass, trigger, at_once=at_once, force=force)
        self._under_way = self._again()

    def step(self) -> None:
        """Continue the pass that is under way, for about 0.1 ms; its last step writes."""
        steps, self._under_way = self._under_way, None
        if steps is None:
            return
        self._step_began = time.thread_time()
        try:
            for _ in steps:
                self._under_way = steps
                self._spent += time.thread_time() - self._step_began
                return
        finally:
            then = None if self.under_way else self._then
            if then is not None:  # also after an error
                self._then = None
                then()

    def finish(self) -> None:
        """Make all steps of the pass that is under way, and of those that follow from it."""
        with ordinary_time():
            while self.under_way:
                self.step()

    def restart(self) -> None:
        """Begin the pass that is under way anew, so that nothing is open until its next step."""
        if self._under_way is not None and self._again is not None:
            self._under_way.close()
            self._under_way = self._again()

    def _pass(self, trigger: Trigger, *, at_once: bool, force: Force) -> Steps[None]:
        if self._instance_watch.mounted is None:
            return
        began = time.monotonic()
        result = yield from self._instance_reconciler.reconcile(trigger, at_once=at_once, force=force)
        if result is None and self._events.pending.watch_removed:
            self.instance_lost()
        if trigger is Trigger.RESYNC:
            self._instance_watch.looked()  # the pass belongs to the look, and takes most of its time
        self._seal.check()  # a write may have left it open
        with urgent_time():
            answer = self._urgent.repair_pending() if force is nothing else None  # with it, its stand-ins would stay
        if result is not None:
            self._take_in(trigger, result, began)
        if answer is not None:
            self._urgent.report(answer)
        self._readiness.changed(result)
        cost = self._spent + time.thread_time() - self._step_began
        self._schedule.spent_on_pass(cost)
        if trigger is Trigger.QUIET and result is not None and not result.done:
            self._throttle.charge_pass(cost, time.monotonic())

    def _take_in(self, trigger: Trigger, result: ReconcileResult, began: float) -> None:
        """Report a pass, and begin the work in the background that follows from it."""
        if result.done or not self._readiness.ready:
            self._probe_runner.want()
        self._looks.keep()
        if self._interpreters.out_of_date:  # a foreign entry names one that was not looked at
            self._schedule.look_later(time.monotonic())
        self._keep_for_reboot(result)
        self._report.trouble(self._instance_watch.problem)
        self._report.passed(trigger, result, time.monotonic() - began)

    def _keep_for_reboot(self, result: ReconcileResult) -> None:
        if self._boot_persistence.off:
            return
        assessment, config, failed = result.assessment, self._reconciler.config, frozenset(self._reconciler.failed)

        def done(worked: bool) -> None:  # noqa: FBT001  a callback's only argument
            if worked:
                self._report.kept_for_reboot(self._boot_persistence)
                self._readiness.changed()

        self._background.run(_PERSISTENT, lambda: self._boot_persistence.bring(assessment, config, failed), done)
