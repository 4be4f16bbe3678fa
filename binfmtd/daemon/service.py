"""The daemon's life: start, wait, react, settle, reload, stop.

One thread and one wait.  What wakes it: inotify (somebody touched the instance, an interpreter or the config), the
mount table, a signal, or the next deadline (a name that is quiet now, the end of a back-off, `resync`, the watchdog).
"""

import gc
import time

from binfmtd.daemon.attachment import Attachment
from binfmtd.daemon.exporter import Exporter
from binfmtd.daemon.look import PassResult
from binfmtd.daemon.mount_table import MountTable
from binfmtd.daemon.notify import Notifier
from binfmtd.daemon.pacing import Pacing
from binfmtd.daemon.pause_file import PauseFile
from binfmtd.daemon.persistent import Persistence
from binfmtd.daemon.probing import Probing
from binfmtd.daemon.reconcile import Reconciler
from binfmtd.daemon.reload_request import ConfigSource, ReloadRequest
from binfmtd.daemon.reporter import Reporter
from binfmtd.daemon.signals import Signals, reap_orphans
from binfmtd.daemon.state_dir import Lock
from binfmtd.daemon.storm import Storm
from binfmtd.daemon.wait import Wait
from binfmtd.daemon.watch import Watch
from binfmtd.daemon.watchdog import Watchdog
from binfmtd.daemon.watched_files import WatchedFiles
from binfmtd.daemon.worker import Force, Worker, nothing
from binfmtd.errors import ConfigError, MountError, StateError
from binfmtd.kernel.mount import Where
from binfmtd.model.config import OnStop
from binfmtd.report.sentence import sentence


class Service:
    """Everything that lives as long as the daemon."""

    def __init__(
        self,
        source: ConfigSource,
        where: Where,
        reconciler: Reconciler,
        reporter: Reporter,
        signals: Signals,
        persistence: Persistence,
        lock: Lock,
        pauses: PauseFile,
        probing: Probing,
    ) -> None:
        """``where`` binfmt_misc is, or is to be mounted."""
        self._source = source
        self._reconciler = reconciler
        self._report = reporter
        self._signals = signals
        self._persistence = persistence
        self._lock = lock
        self._pauses = pauses
        self._probing = probing
        self._notifier = Notifier()
        self._watchdog = Watchdog(self._notifier)
        self._watch = Watch()
        state_files = {"pauses": pauses.watched, "probed": probing.watched}
        self._files = WatchedFiles(self._watch, source.watched, state_files, reporter)
        self._mounts = MountTable()
        self._wait = Wait(self._mounts.descriptor, self._signals.descriptor)
        self._attachment = Attachment(where, self._watch, self._wait)
        self._pacing = Pacing(reconciler.config.policy.settle, reporter)
        self._reload = ReloadRequest()
        self._storm = Storm()
        self._worker = Worker(reconciler, self._attachment, self._watch, self._pacing, self._storm, reporter)
        self._exporter = Exporter(reporter, self._wait)
        self._ready = False

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT.  Raises WriteRefusedError if this process may not write at all."""
        self._reconciler.pauses = self._pauses.read()
        self._report.pauses_unread(self._pauses.problem)
        self._probing.take_in()
        self._attach("start")
        gc.freeze()  # what is loaded by now is no garbage, and a collection in a repair need not look through it
        gc.enable()
        while not self._signals.stop:
            deadline = min(
                self._look_at(),
                self._pacing.deadline(),
                self._reload.due_at,
                self._persistence.due_at,
                self._pauses.due_at(self._reconciler.pauses),
                self._mounts.due_at,
                self._storm.glance_at,
                self._watchdog.due_at,
                self._probing.due_at,
            )
            listen_at = self._storm.listen_at
            began = time.thread_time()  # before the wait, which costs none: after it there is no time to lose
            woken = self._wait.until(min(deadline, listen_at) if self._worker.heard else deadline, listen_at)
            now = time.monotonic()
            in_vain = False
            if self._watch.descriptor in woken:
                self._worker.listen()
                in_vain = self._watch.nobodys
            if self._worker.heard:
                in_vain = now >= listen_at and not self._react()
            if in_vain:
                self._storm.looked_for_nothing(time.thread_time() - began, now)
            if self._signals.descriptor in woken:
                self._obey()
            if self._mounts.descriptor in woken:
                self._mounts.drain()
            self._do_what_is_due()
        self._stop()

    # What wakes it

    def _react(self) -> bool:
        """Answer what was heard; False if the kernel had to be told nothing."""
        heard, reaction = self._worker.repair()
        now, served = time.monotonic(), False
        if reaction.found:
            self._probing.want()
            self._tell()
        if "pauses" in heard.files:
            self._pause()
        if "probed" in heard.files:
            self._probing.take_in()
            self._tell()
        if "config" in heard.files:
            self._ask_for_reload()
        if "interpreters" in heard.files:
            if heard.arrived and self._files.first_in_a_while(now):
                served = self._serve_upgraded()
            self._files.changed = True
            self._pacing.look_later(now)
        if heard.overflow:
            self._worker.touched = None
            self._make_pass("overflow")
        if heard.lost:
            self._report.watch_lost()
            self._attach("watch_lost")
        return bool(reaction.bridged or reaction.ended or served)

    def _serve_upgraded(self) -> bool:
        """An interpreter was put in its place: stand-ins for what is stale, and all else when it is quiet."""
        began = time.monotonic()
        self._reconciler.interpreter_arrived()
        result = self._worker.make_pass("interpreter")
        if result is None:
            return False
        self._report.passed("interpreter", result, time.monotonic() - began)
        self._tell(result)
        return bool(result.bridged)

    def _obey(self) -> None:
        self._signals.drain()
        if self._signals.child:
            self._signals.child = False
            if self._probing.reap():
                self._tell()
            reap_orphans()
        if self._signals.reload:
            self._signals.reload = False
            self._ask_for_reload()

    def _ask_for_reload(self) -> None:
        """Say so at once: systemd, whose ExecReload may be over by now, then waits until the config is read."""
        self._notifier.send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        self._reload.make(time.monotonic())

    def _do_what_is_due(self) -> None:
        now = time.monotonic()
        if now >= self._watchdog.due_at:
            self._watchdog.ping(now)
        if now >= self._storm.glance_at:
            cpu = time.thread_time()
            if news := self._worker.glance():
                self._tell()
            self._storm.glanced(0.0 if news else time.thread_time() - cpu, now)
        if now >= self._mounts.due_at:
            self._mounts.due_at = float("inf")
            self._attach("mount")
            self._mounts.looked(now)
        if now >= min(self._pauses.due_at(self._reconciler.pauses), self._look_at()):
            self._pause()
        if now >= self._reload.due_at and self._reload.take(now, self._source.age()):
            self._load()
        self._probing.step(now)
        if self._pacing.end_contentions(now):
            self._tell()
        if now >= self._look_at():
            self._files.changed = True
            self._worker.touched = None
            self._attach("resync")
        elif self._pacing.anything_due(now):
            self._make_pass("quiet")
        elif self._persistence.step():  # one at a time: what comes in between is served at once
            self._report.kept_for_reboot(self._persistence)
            self._tell()

    # What it watches, and what it does

    def _attach(self, trigger: str) -> None:
        """Find the instance, arm the watch, and only then look: so nothing falls between."""
        before = self._attachment.mounted
        try:
            fresh = self._attachment.attach()
        except MountError as error:
            self._pacing.forget()
            self._probing.want()
            self._report.trouble(str(error))
            self._tell()
            return
        at_once = fresh and trigger != "resync"
        if fresh:
            self._worker.forget_own()
        if at_once:
            self._pacing.forget()  # what was open was so elsewhere
        if fresh or self._watch.exhausted:
            self._worker.touched = None  # nobody told which entries were touched
        self._reconciler.retry()
        self._exporter.retry()
        self._files.changed = True  # an interpreter may lie on what was mounted or unmounted
        if trigger == "mount" and not fresh and self._attachment.mounted == before:
            self._pacing.look_later(time.monotonic())  # something else was mounted: a storm of that makes one look
            return
        # The first pass registers what was never there, however long the mount was waited for: no drift, no repair.
        self._make_pass(trigger if self._worker.has_looked else "start", at_once=at_once)
        self._attachment.looked()

    def _look_at(self) -> float:
        return self._attachment.look_at(self._reconciler.config.policy.resync)

    def _make_pass(self, trigger: str, *, at_once: bool = False, force: Force = nothing) -> None:
        """Look at everything and do what is due; ``at_once`` and ``force`` as in the worker's."""
        if self._attachment.mounted is None:
            self._pacing.forget()  # what is open cannot be done, and would be due for ever
            return
        began, cpu = time.monotonic(), time.thread_time()
        self._keep_state_dir()
        if files_changed := self._files.changed:
            self._files.changed = False
            self._files.arm(self._reconciler.config)
            self._reconciler.retry(interpreters=True)
        result = self._worker.make_pass(trigger, at_once=at_once, force=force)
        answer = self._worker.repair_first() if force is nothing else None  # else its stand-ins would stay
        if result is not None:
            if result.done or not self._ready:
                self._probing.want()
            if self._files.serve_in_our_place(result.look.providers(), self._reconciler.config):
                self._pacing.look_later(time.monotonic())
            self._persistence.want(result.look, self._reconciler.config, self._reconciler.failed)
            self._report.trouble(self._attachment.problem)
            self._report.passed(trigger, result, time.monotonic() - began)
        if answer is not None:
            self._worker.tell(answer)
        self._tell(result)
        if self._files.changed:  # again, while they were looked at
            self._pacing.look_later(time.monotonic())
        if files_changed:  # as after any mount
            self._mounts.looked(began)
        if trigger == "quiet" and result is not None and not result.done:
            self._storm.passed_for_nothing(time.thread_time() - cpu, time.monotonic())

    def _pause(self) -> None:
        """Obey what is paused now; what was open before is settled first, so that no stand-in stays meanwhile."""
        before = self._reconciler.pauses
        pauses = self._pauses.read(before)
        if self._report.pauses_unread(self._pauses.problem):
            self._tell()
        if pauses == before:
            return
        if pauses.until.keys() - before.until.keys():
            self._make_pass("pause", force=pauses.hold)
        self._reconciler.pauses = pauses
        self._report.paused(pauses, before)
        self._make_pass("pause")
        self._tell()

    def _keep_state_dir(self) -> None:
        try:
            if self._lock.keep():
                self._report.state_dir_made_again()
                self._files.changed = True  # it is another directory to watch
                self._worker.heard.files.add("pauses")  # and may say something already
        except StateError as error:
            self._report.state_dir_lost(str(error))

    def _load(self) -> None:
        try:
            config = self._source.load()
        except ConfigError as error:
            self._report.config_rejected(str(error))
            self._files.arm(self._reconciler.config)
            self._tell()
        else:
            self._report.config_reloaded(config)
            self._reconciler.use(config)
            self._persistence.retry()
            self._exporter.retry()
            self._pacing.use(config.policy.settle)
            self._probing.use(config.policy.probe)
            self._files.arm(self._reconciler.config)
            self._make_pass("reload", at_once=True)
            if self._attachment.mounted is None:
                self._tell()
        if self._ready:
            self._notifier.send("READY=1")

    def _stop(self) -> None:
        self._notifier.send("STOPPING=1")
        self._probing.stop()
        if self._attachment.mounted is None:
            self._attach("stop")  # it may be back, and we have not looked yet
        self._make_pass("stop", force=lambda _: True)
        if self._reconciler.config.policy.on_stop is OnStop.REMOVE:
            self._worker.remove_owned()
            self._tell()
        self._exporter.close()
        self._report.stopped()

    def _tell(self, result: PassResult | None = None) -> None:
        """Write the status, then say that we are ready: after the first pass, with proper names."""
        document = self._report.write(self._reconciler, self._attachment.mounted, self._pacing.contended())
        self._notifier.tell(sentence(document))
        ready = self._ready or (result is not None and not self._pacing.open())
        self._exporter.show(document, self._reconciler.config.metrics, started=ready)
        if ready and not self._ready:
            self._ready = True
            self._notifier.send("READY=1")
