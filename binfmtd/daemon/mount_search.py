"""The search for the mounted instance, and what follows when it is found.

A thread searches, since finding or mounting may block.  The instance that it finds is watched first, and only then
looked at, so that no change is missed.  The reason for the search decides what follows:

* MOUNT, the mount table has changed: nothing if the instance is the same, but interpreters may lie on what was mounted;
* WATCH_LOST and RESYNC: a pass that reads every entry;
* any reason, and another instance is found: a pass that registers everything there at once.  The ledger is written
  before.
"""

import time
from functools import partial

from binfmtd.daemon.background import Background
from binfmtd.daemon.entries.reconciler import Reconciler
from binfmtd.daemon.interpreters.interpreter_files import InterpreterFiles
from binfmtd.daemon.interpreters.probe_runner import ProbeRunner
from binfmtd.daemon.metrics.exporter import Exporter
from binfmtd.daemon.passes import Passes
from binfmtd.daemon.readiness import Readiness
from binfmtd.daemon.repairs.instance_reconciler import InstanceReconciler
from binfmtd.daemon.repairs.repair_schedule import RepairSchedule
from binfmtd.daemon.repairs.seal_keeper import SealKeeper
from binfmtd.daemon.reporting.reporter import Reporter
from binfmtd.daemon.state_files.state_writer import StateWriter
from binfmtd.daemon.trigger import Trigger
from binfmtd.daemon.watches.inotify import InotifyWatcher
from binfmtd.daemon.watches.instance_watch import InstanceWatch
from binfmtd.daemon.watches.mount_watcher import MountWatcher
from binfmtd.errors import MountError
from binfmtd.kernel.mount import Mounted

WRITTEN = 0.2  # seconds that the start, a new config and another instance wait for the ledger
_STOPPING = 0.5  # seconds that the end searches for an instance that may be mounted again
_PATIENCE = 3.0  # seconds until a search that waits for an automount counts as one that has failed
_LONGEST_LOOK = 0.5  # seconds of a look that count for the rest after it: it may have waited for an automount
_MOUNT = "mount"  # key of the work in the background
_NEVER = float("inf")


class Patience:
    """The time limit of a search."""

    def __init__(self) -> None:
        self.due_at = _NEVER  # monotonic, in seconds
        self.ended = False  # that time has come, and the search goes on

    def begin(self) -> None:
        """Begin with a search."""
        self.due_at, self.ended = time.monotonic() + _PATIENCE, False

    def end(self) -> None:
        """Record that the time has come."""
        self.due_at, self.ended = _NEVER, True

    def reset(self) -> None:
        """Record that the search has ended."""
        self.due_at, self.ended = _NEVER, False


class MountSearch:
    """The search that is under way, if any, and its result."""

    def __init__(
        self,
        background: Background,
        mounts: MountWatcher,
        watch: InotifyWatcher,
        instance_watch: InstanceWatch,
        seal: SealKeeper,
        instance_reconciler: InstanceReconciler,
        reconciler: Reconciler,
        schedule: RepairSchedule,
        passes: Passes,
        interpreters: InterpreterFiles,
        state: StateWriter,
        exporter: Exporter,
        probe_runner: ProbeRunner,
        report: Reporter,
        readiness: Readiness,
    ) -> None:
        self._background = background
        self._mounts = mounts
        self._watch = watch
        self._instance_watch = instance_watch
        self._seal = seal
        self._instance_reconciler = instance_reconciler
        self._reconciler = reconciler
        self._schedule = schedule
        self._passes = passes
        self._interpreters = interpreters
        self._state = state
        self._exporter = exporter
        self._probe_runner = probe_runner
        self._report = report
        self._readiness = readiness
        self._trigger: Trigger | None = None  # of the search that is under way
        self.patience = Patience()  # with it

    @property
    def due_at(self) -> float:
        """The time of the next look without an event (monotonic, in seconds); infinity while a search is under way."""
        if self._trigger is not None:
            return _NEVER
        return self._instance_watch.look_at(self._reconciler.config.policy.resync)

    @property
    def for_a_lost_one(self) -> bool:
        """True if a search is under way because the instance was lost."""
        return self._trigger is Trigger.WATCH_LOST

    def begin(self, trigger: Trigger) -> None:
        """Search for the instance in the background; ``trigger`` is the reason."""
        if trigger is Trigger.MOUNT:  # which may call for no look at everything, and must not delay the next one
            self._instance_watch.open_watch()
        else:
            self._instance_watch.begin()
        if self._trigger is None:
            self.patience.begin()
        if self._trigger is None or trigger is not Trigger.MOUNT:
            self._trigger = trigger
        if trigger is Trigger.WATCH_LOST and not self.patience.ended:
            self._passes.instance_lost()
        self._background.run(_MOUNT, self._instance_watch.find, partial(self._ended, time.monotonic()))

    def finish_at_end(self) -> None:
        """Search once more when the daemon ends without an instance; waits half a second at most."""
        if self._instance_watch.mounted is None:  # binfmt_misc may be mounted again
            self.begin(Trigger.STOP)
            self._background.finish([_MOUNT], _STOPPING)

    def give_up(self, _: float) -> None:
        """Regard the instance as out of reach until the search ends, if that waits for an automount."""
        error = self._instance_watch.does_not_answer()
        if error is None:  # it is only slow
            self.patience.begin()
            return
        self.patience.end()
        self._passes.instance_searched()
        self.attach(error)

    def attach(self, mounted: Mounted | MountError) -> bool | None:
        """Watch the instance that was found; return True if it is another or newly watched, None if there is none."""
        try:
            seen = mounted if isinstance(mounted, MountError) else self._seal.keep(mounted) or mounted
            fresh = self._instance_watch.attach(seen)
        except MountError as error:
            self._schedule.forget()
            self._probe_runner.want()
            self._report.trouble(str(error))
            self._readiness.changed()
            return None
        self._instance_reconciler.instance_found(fresh=fresh)
        return fresh

    def _ended(self, began: float, mounted: Mounted | MountError) -> None:
        if self._instance_watch.does_not_answer() is not None:
            return  # the next search, whose result is newer, waits for an automount, as any look at its path would
        trigger, self._trigger = self._trigger or Trigger.MOUNT, None
        if self._background.busy(_MOUNT):
            self.patience.begin()
        else:
            self.patience.reset()
        self._passes.instance_searched()
        self._found(mounted, trigger)
        self._mounts.looked(max(began, time.monotonic() - _LONGEST_LOOK))

    def _found(self, mounted: Mounted | MountError, trigger: Trigger) -> None:
        """Watch the instance, and only then look at it, so that no change goes unnoticed."""
        if trigger is not Trigger.MOUNT:
            self._seal.retry()
        before = self._instance_watch.mounted
        fresh = self.attach(mounted)
        if fresh is None or trigger is Trigger.STOP:
            return
        at_once = fresh and trigger is not Trigger.RESYNC
        if at_once:
            self._schedule.forget()  # the open drifts were those of another instance
        if fresh or self._watch.exhausted:
            self._instance_reconciler.read_all_next()
        unchanged = not fresh and self._instance_watch.mounted == before
        if trigger is Trigger.MOUNT and unchanged and not self._instance_watch.looks_instead:
            self._look_at_interpreters()
            return
        if trigger is Trigger.MOUNT:
            self._instance_watch.begin()
        self._reconciler.retry()
        self._exporter.retry()
        self._interpreters.look(everything=True)
        # The first pass registers what was never there, however long it waited for the mount: that is no repair.
        trigger = trigger if self._instance_reconciler.has_reconciled else Trigger.START
        if fresh:
            self._instance_reconciler.assess()  # so that the ledger belongs to this instance
            self._reconciler.intend()
            self._state.sync(partial(self._make_first_pass, trigger, self._identity(), at_once=at_once), WRITTEN)
        else:
            self._passes.request(trigger, at_once=at_once)
        self._instance_watch.looked()

    def _look_at_interpreters(self) -> None:
        """Look at interpreters, which may lie on what was mounted or unmounted, and try again what failed."""
        self._interpreters.look(everything=True)
        if self._reconciler.failed:  # perhaps because of a mount's noexec
            self._reconciler.retry()
            self._schedule.look_later(time.monotonic())

    def _make_first_pass(self, trigger: Trigger, identity: tuple[int, int] | None, *, at_once: bool) -> None:
        """Make the pass that registers everything in another instance, if the daemon is still attached to that one."""
        if self._identity() == identity:
            self._passes.request(trigger, at_once=at_once)

    def _identity(self) -> tuple[int, int] | None:
        """Return the identity of the instance that the daemon is attached to; None if there is none."""
        return None if self._instance_watch.mounted is None else self._instance_watch.mounted.identity
