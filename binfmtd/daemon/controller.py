"""The order of the daemon's beginning and end, and what each descriptor and each deadline leads to.

* ``start`` and ``stop`` are the beginning and the end.
* ``handle`` takes signals and changes of the mount table, and does what is due even while a pass is under way.
* ``between_passes`` takes results of threads, and does everything else that is due.  Both wait for the end of a pass:
  they may change the config, the pauses, the instance or the facts on which it is based.
* The lists of deadlines have each once, with the method that it leads to.

After the start the loop's thread touches only binfmt_misc, inotify and memory.  Other threads do everything else that
may block (`background`): they read and write files, look at interpreters, find or mount binfmt_misc, and write the log.
"""

import sys
import time
from collections.abc import Collection

from binfmtd.daemon.mount_search import WRITTEN
from binfmtd.daemon.parts import Parts
from binfmtd.daemon.preload import cannot_load
from binfmtd.daemon.signals import reap_orphans
from binfmtd.daemon.state_files.state_writer import KEY as STATE_FILES
from binfmtd.daemon.timers import Timer, Timers
from binfmtd.daemon.trigger import Trigger
from binfmtd.host.scheduling import use_real_time
from binfmtd.model.config import OnStop

# Python's default of 5 ms before another thread runs would make a repair take ten times as long.
_SWITCH_SECONDS = 0.0001
_FIRST_LOOK = 2.0  # seconds that the start waits for interpreters


class Controller:
    """Runs the start and the end, and handles what wakes the loop besides inotify."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._urgent_timers, self._timers = self._make_urgent_timers(), self._make_timers()
        self._timers_first = False  # a result of a thread has begun the last pass, so the deadlines come first next

    def start(self, *, real_time: bool) -> None:
        """Make the first pass.  No handlers are kept yet, so this may wait for files and for the mount."""
        parts = self._parts
        sys.setswitchinterval(_SWITCH_SECONDS)
        parts.pauses.read_at_start()
        parts.probe_runner.begin()
        parts.instance_watch.begin()
        parts.state_watch.begin()
        parts.reload.watch_files()
        self._look_at_interpreters_first()
        mounted = parts.instance_watch.find()
        parts.interpreters.wait()
        if parts.mount_search.attach(mounted) is not None:
            parts.instance_reconciler.assess()  # foreign entries name more interpreters
            self._look_at_interpreters_first()
            parts.interpreters.wait()
            parts.reconciler.intend()
            parts.state.sync()
            parts.background.finish([STATE_FILES], WRITTEN)
            parts.passes.make(Trigger.START, at_once=True)
            parts.passes.finish()
            parts.instance_watch.looked()
        parts.probe_runner.on_change(parts.readiness.changed)  # not before there is a status
        parts.sealing.on_change(parts.readiness.changed)
        parts.access.end_start()
        parts.readiness.await_published()
        if real_time:
            self._use_real_time()

    def stop(self) -> None:
        """Write what is open, remove our entries if the config says so, and publish the end."""
        parts = self._parts
        parts.notifier.send("STOPPING=1")
        parts.probe_runner.stop()
        parts.passes.cancel_waiting()
        parts.passes.finish()
        parts.mount_search.finish_at_end()
        parts.passes.make(Trigger.STOP, force=lambda _: True)
        parts.passes.finish()
        if parts.reconciler.config.policy.on_stop is OnStop.REMOVE:
            parts.instance_reconciler.remove_owned()
            parts.sealing.open_for_good()
        parts.readiness.end()
        parts.report.stopped()

    def due_at(self) -> float:
        """Return the earliest deadline (monotonic, in seconds); infinity if there is none."""
        return min(self._urgent_timers.next(), self._timers.next())

    def handle(self, woken: Collection[int]) -> None:
        """Handle the signals and the mount table, by descriptor, and do what is due even while a pass is under way."""
        parts = self._parts
        if parts.signals.descriptor in woken:
            self._signals_came()
        if parts.mounts.descriptor in woken:
            parts.mounts.drain()
        self._urgent_timers.run(time.monotonic())

    def between_passes(self, woken: Collection[int]) -> None:
        """Take in results of threads and do what is due, until one of them begins a pass.

        After a pass that results have begun, the deadlines come first, so neither waits for ever.
        """
        parts, timers_first = self._parts, self._timers_first
        self._timers_first = False
        if timers_first:
            self._run_timers()
        if parts.background.descriptor in woken and not parts.passes.under_way:
            parts.background.deliver(self._pass_begun)
            self._timers_first = parts.passes.under_way
        if not (timers_first or parts.passes.under_way):
            self._run_timers()

    def _run_timers(self) -> None:
        self._timers.run(time.monotonic(), self._pass_begun)

    def _pass_begun(self) -> bool:
        return self._parts.passes.under_way

    def end_turn(self) -> None:
        """Do what follows each wake-up."""
        parts = self._parts
        parts.looks.look_at_slow()
        parts.readiness.end_start(time.monotonic())
        if not (parts.interpreters.at_work or parts.reload.arming or parts.state_watch.arming):
            parts.watch.tidy()

    def module_missing(self, error: ImportError) -> None:
        """Report that a module could not be loaded, which ended the turn."""
        self._parts.mounts.drain()  # a poll may have consumed a change that the turn did not come to
        self._parts.report.notices.restart_needed(cannot_load(error))

    def _make_urgent_timers(self) -> Timers:
        """List the deadlines that do not wait for the end of a pass."""
        parts = self._parts
        return Timers(
            [
                Timer(parts.watchdog, parts.watchdog.ping),
                Timer(parts.notifier, parts.notifier.retry),
                Timer(parts.withheld, parts.withheld.restore),
                Timer(parts.identity_checks, parts.identity_checks.check),
                Timer(parts.background, parts.background.retry),
            ]
        )

    def _make_timers(self) -> Timers:
        """List the other deadlines, those first that delay no other."""
        parts = self._parts
        return Timers(
            [
                Timer(parts.interpreters, parts.interpreters.step),
                Timer(parts.state, parts.state.begin_overdue),
                Timer(parts.readiness, parts.readiness.end_start),
                Timer(parts.mounts, self._mount_table_changed),
                Timer(parts.mount_search.patience, parts.mount_search.give_up),
                Timer(parts.pauses, parts.pauses.end_due),
                Timer(parts.reload, parts.reload.retry),
                Timer(parts.probe_runner, parts.probe_runner.step),
                Timer(parts.sealing, parts.seal.check),
                Timer(parts.report, self._log_due),
                Timer(parts.mount_search, self._resync),
                Timer(parts.passes, parts.passes.begin_due),
            ]
        )

    def _look_at_interpreters_first(self) -> None:
        self._parts.looks.keep()
        self._parts.interpreters.look(patience=_FIRST_LOOK)

    def _use_real_time(self) -> None:
        try:
            use_real_time()
        except OSError as error:
            self._parts.report.notices.real_time_refused(error)
        else:
            self._parts.signals.expect_real_time_to_end()
            self._parts.report.notices.real_time()

    # Signals and deadlines

    def _signals_came(self) -> None:
        parts = self._parts
        parts.signals.drain()
        if parts.signals.take_child():
            parts.probe_runner.reap()
            reap_orphans()
        if parts.signals.take_real_time_ended():
            parts.report.notices.real_time_ended()
        if parts.signals.take_reload():
            parts.reload.begin()

    def _mount_table_changed(self, _: float) -> None:
        self._parts.mounts.begin()
        self._parts.mount_search.begin(Trigger.MOUNT)

    def _log_due(self, now: float) -> None:
        if self._parts.report.log_due(now):
            self._parts.readiness.changed()

    def _resync(self, _: float) -> None:
        parts = self._parts
        parts.readiness.load_modules()
        parts.pauses.read()
        parts.exporter.retry()
        parts.instance_reconciler.read_all_next()
        parts.mount_search.begin(Trigger.RESYNC)  # which opens inotify, if it could not be opened before
        if parts.watch.watches_instance or parts.instance_watch.mounted is None:  # the instance comes first
            parts.state_watch.retry()
            parts.reload.retry_watches()
