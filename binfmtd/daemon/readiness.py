"""READY=1 and the published status: the daemon is ready when other programs can rely on what they read about it.

* READY=1 is sent once the first pass that leaves no drift open has been made, and what other programs read has been
  written.  A program that undoes each repair, or a disk that hangs, delays it by five seconds at most: systemd kills a
  service that does not become ready.
* The status is published in the turn of the loop in which it has changed, or after the pass that is under way.
* While the daemon backs off from a name, another program can change the status hundreds of times a second.  Then
  publishing takes 0.1 % of a core at most in the long run, and the status is late.
* If the service manager's queue is full, READY=1 is sent again until the queue has room (sd_notify.py).
* After a reload READY=1 follows once the new status has been written, or after one second without that.
* The modules that a reload can need are loaded after the start, so that neither the start nor a repair waits for them.

Example: the first pass registers everything at 10 ms, and the status file is written at 12 ms: READY=1 is sent then.
"""

import time
from collections.abc import Mapping
from typing import Any

from binfmtd.daemon.assessment import ReconcileResult
from binfmtd.daemon.background import Background
from binfmtd.daemon.cpu_budget import CpuBudget
from binfmtd.daemon.entries.reconciler import Reconciler
from binfmtd.daemon.preload import preload
from binfmtd.daemon.publisher import KEYS as PUBLISHED
from binfmtd.daemon.publisher import Publisher
from binfmtd.daemon.repairs.repair_schedule import RepairSchedule
from binfmtd.daemon.reporting.reporter import Reporter
from binfmtd.daemon.sd_notify import Notifier
from binfmtd.daemon.watches.config_watch import KEY as CONFIG_FILES
from binfmtd.daemon.watches.instance_watch import InstanceWatch

_PUBLISH_SECONDS = 0.05  # of CPU time that publishing may take at once: some 50 times
_PUBLISH_SHARE = 0.001  # of a core, in the long run
_FIRST_PUBLISHED = 5.0  # seconds that the first READY=1 waits for watches, status file, textfile and HTTP
_FIRST_SETTLED = 5.0  # seconds after the first pass that READY=1 waits for one that leaves no drift open
_MODULES = "modules"  # key of the work in the background
_NEVER = float("inf")


class Readiness:
    """The state of the start, and the publishing of the status."""

    def __init__(
        self,
        background: Background,
        notifier: Notifier,
        publisher: Publisher,
        report: Reporter,
        reconciler: Reconciler,
        instance_watch: InstanceWatch,
        schedule: RepairSchedule,
    ) -> None:
        self.ready = False  # a pass has left no drift open, or five seconds of passes have not
        self._ready_by = _NEVER  # even if a drift is open
        self._start_ends_at = _NEVER  # even if something is not published
        self._budget = CpuBudget(_PUBLISH_SECONDS, _PUBLISH_SHARE)
        self._charged = 0.0  # seconds of CPU time of the threads that publish
        self._changed = False  # since the status was published
        self._ready_next = False  # READY=1 follows when the status has been published
        self._started = False
        self._ended = False
        self._loaded = False  # the modules that a reload can need
        self._background = background
        self._notifier = notifier
        self._publisher = publisher
        self._report = report
        self._reconciler = reconciler
        self._instance_watch = instance_watch
        self._schedule = schedule

    @property
    def unpublished(self) -> bool:
        """True if ``publish`` has anything to do now."""
        return self._changed and time.monotonic() >= self._publish_at

    @property
    def due_at(self) -> float:
        """When the start ends, READY=1 is due, or a change that waits may be published (monotonic, in seconds)."""
        return min(self._start_ends_at, self._ready_by, self._publish_at if self._changed else _NEVER)

    @property
    def _publish_at(self) -> float:
        # READY=1 waits for the status.
        at_once = self._ready_next or not self._started or self._ended or not self._schedule.contended()
        return -_NEVER if at_once else self._budget.free_at()

    def changed(self, result: ReconcileResult | None = None) -> None:
        """Have the status published; ``result``: of the pass that has changed it.

        READY=1 follows the first pass that leaves no drift open, or five seconds after the first one.
        """
        self._changed = True
        if self.ready or result is None:
            return
        if self._schedule.is_settled():
            self._become_ready()
        else:
            self._ready_by = min(self._ready_by, time.monotonic() + _FIRST_SETTLED)

    def reloaded(self) -> None:
        """Have the status published, and READY=1 sent when that has been written, or after a second without that."""
        self._changed = self._ready_next = True

    def publish(self) -> None:
        """Publish the status if it has changed, and if that has not taken too much CPU time lately."""
        if not self.unpublished:
            return
        began = time.thread_time()
        ready = self._ready_next and self.ready and self._started  # the start itself waits until all is published
        self._changed = self._ready_next = False
        then = self._send_ready if ready else None
        self._publisher.publish(self._document(), self._reconciler.config, started=self.ready, then=then)
        in_threads = sum(self._background.cpu_seconds.get(key, 0.0) for key in PUBLISHED)
        if self._schedule.contended():
            self._budget.spend(time.thread_time() - began + in_threads - self._charged, time.monotonic())
        self._charged = in_threads

    def await_published(self) -> None:
        """Let the start end when all is published, or after five seconds: the first pass has been made."""
        self.publish()
        now = time.monotonic()
        self._start_ends_at = now + _FIRST_PUBLISHED
        self.end_start(now)

    def end_start(self, now: float) -> None:
        """Send READY=1 when all that other programs read has been written, or after five seconds without that."""
        if now >= self._ready_by:
            self._become_ready()
            return  # not before the status has been published
        if self._started or (now < self._start_ends_at and any(map(self._background.busy, (CONFIG_FILES, *PUBLISHED)))):
            return
        self._start_ends_at, self._started = _NEVER, True
        if self.ready:
            self._send_ready()
        self.load_modules()

    def load_modules(self) -> None:
        """Load what a reload can need, unless that has been done: an upgrade may replace its files."""

        def loaded(all_of_them: bool) -> None:  # noqa: FBT001  a callback's only argument
            self._loaded = all_of_them
            if all_of_them:
                self._report.notices.modules_loaded()

        if not self._loaded:
            self._background.run(_MODULES, lambda: preload(self._report.notices.restart_needed), loaded)

    def end(self) -> None:
        """Publish the last status, and close what publishes it."""
        self._changed = self._ended = True
        self.publish()
        self._publisher.close()

    def _become_ready(self) -> None:
        self.ready, self._ready_by = True, _NEVER
        self._changed, self._ready_next = True, self._started  # the end of the start sends READY=1 itself

    def _document(self) -> Mapping[str, Any]:
        return self._report.document(self._reconciler, self._instance_watch.mounted, self._schedule.contended())

    def _send_ready(self) -> None:
        if self._ended:
            return  # systemd has got STOPPING=1
        self._notifier.send("READY=1")
