"""The daemon's life: start, wait, react, settle, reload, stop.

One thread and one wait.  What wakes it: inotify (somebody touched the instance, an interpreter or the config), the
mount table, a signal, or the next deadline (a name that is quiet now, the end of a back-off, `resync`).
"""

import errno
import time

from binfmtd.daemon.attachment import Attachment
from binfmtd.daemon.hot_path import HotPath, Reaction
from binfmtd.daemon.mount_table import MountTable
from binfmtd.daemon.notify import Notifier
from binfmtd.daemon.pacing import Pacing
from binfmtd.daemon.pause_file import PauseFile
from binfmtd.daemon.persistent import Persistence
from binfmtd.daemon.reconcile import PassResult, Reconciler
from binfmtd.daemon.reload_request import ConfigSource, ReloadRequest
from binfmtd.daemon.reporter import Reporter
from binfmtd.daemon.signals import Signals, reap_orphans
from binfmtd.daemon.state_dir import Lock
from binfmtd.daemon.storm import Storm
from binfmtd.daemon.wait import Wait
from binfmtd.daemon.watch import Heard, Watch
from binfmtd.daemon.watched_files import WatchedFiles
from binfmtd.errors import BinfmtdError, ConfigError, MountError, StateError, WriteRefusedError
from binfmtd.kernel.converge import Due
from binfmtd.kernel.instance import Instance
from binfmtd.kernel.mount import Where
from binfmtd.kernel.write import Writer, Wrote
from binfmtd.model.config import OnStop
from binfmtd.model.drift import Action
from binfmtd.report.printable import printable


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
    ) -> None:
        """``where`` binfmt_misc is, or is to be mounted."""
        self._source = source
        self._reconciler = reconciler
        self._report = reporter
        self._signals = signals
        self._persistence = persistence
        self._lock = lock
        self._pauses = pauses
        self._notifier = Notifier()
        self._watch = Watch()
        self._files = WatchedFiles(self._watch, source.watched, pauses.watched, reporter)
        self._mounts = MountTable()
        self._wait = Wait(self._mounts.descriptor, self._signals.descriptor)
        self._attachment = Attachment(where, self._watch, self._wait)
        self._pacing = Pacing(reconciler.config.policy.settle, reporter)
        self._reload = ReloadRequest()
        self._storm = Storm()
        self._hot: HotPath | None = None
        self._wrote: list[Wrote] = []
        self._heard = Heard()  # what came up while a pass was under way
        self._touched: set[str] | None = None  # entries to read again at the next full look; None: all
        self._ready = False

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT.  Raises WriteRefusedError if this process may not write at all."""
        self._reconciler.pauses = self._pauses.read()
        self._attach("start")
        while not self._signals.stop:
            deadline = min(
                self._look_at(),
                self._pacing.deadline(),
                self._reload.due_at,
                self._persistence.due_at,
                self._pauses.due_at(self._reconciler.pauses),
            )
            listen_at = self._storm.listen_at
            woken = self._wait.until(min(deadline, listen_at) if self._heard else deadline, listen_at)
            now, began = time.monotonic(), time.thread_time()
            if self._watch.descriptor in woken:
                self._heard.add(self._watch.read(self._take_wrote()))
            if self._heard and now >= listen_at and not self._react(now):
                self._storm.looked_for_nothing(time.thread_time() - began, now)
            if self._signals.descriptor in woken:
                self._obey()
            if self._mounts.descriptor in woken:
                self._mounts.drain()
                self._attach("mount")
            self._do_what_is_due()
        self._stop()

    # What wakes it

    def _repair(self, heard: Heard) -> Reaction:
        """The kernel first: stand-ins, what one write ends, and what stops every exec."""
        if self._hot is None or self._attachment.mounted is None or not (heard.names or heard.everything):
            return Reaction()
        bricking: list[str] = []
        reaction = Reaction()
        try:
            with Instance(self._attachment.mounted) as instance:
                writer = Writer(instance)
                try:
                    reaction = self._hot.react(heard, instance, writer)
                    self._reconciler.removed_by_name(heard.written, instance)
                    bricking = self._reconciler.disable_bricking(
                        instance, writer, heard.names, everything=heard.everything
                    )
                finally:
                    self._wrote += writer.take_wrote()
        except MountError:
            heard.lost = True
        except WriteRefusedError as error:
            self._report.trouble(self._attachment.problem or str(error))
        for name in bricking:
            self._report.bricked(name)
        return reaction

    def _react(self, now: float) -> bool:
        """Answer what was heard; False if the kernel had to be told nothing."""
        heard, self._heard = self._heard, Heard()
        reaction = self._repair(heard)
        # The kernel has its handlers again; from here on nothing is urgent.
        self._report.reacted(reaction, time.monotonic() - now, self._pacing.open())
        self._pacing.noted(heard, reaction, now)
        for name, refusal in reaction.refused.items():
            self._reconciler.refused(name, refusal)
        if self._touched is not None:
            self._touched |= heard.names
        if reaction.found:
            self._tell()
        if "pauses" in heard.files:
            self._pause()
        if "config" in heard.files:
            self._reload.make(now)
        if "interpreters" in heard.files:
            self._files.changed = True
            self._pacing.look_later(now)
        if heard.overflow:
            self._touched = None
            self._make_pass("overflow")
        if heard.lost:
            self._report.watch_lost()
            self._attach("watch_lost")
        return bool(reaction.bridged or reaction.ended)

    def _obey(self) -> None:
        self._signals.drain()
        if self._signals.child:
            self._signals.child = False
            reap_orphans()
        if self._signals.reload:
            self._signals.reload = False
            self._reload.make(time.monotonic())

    def _do_what_is_due(self) -> None:
        now = time.monotonic()
        if now >= min(self._pauses.due_at(self._reconciler.pauses), self._look_at()):
            self._pause()
        if now >= self._reload.due_at and self._reload.take(now, self._source.age()):
            self._load()
        if self._pacing.end_contentions(now):
            self._tell()
        if now >= self._look_at():
            self._files.changed = True
            self._touched = None
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
            self._report.trouble(str(error))
            self._notifier.send(f"STATUS={printable(str(error))}")  # a newline would begin another state
            self._tell()
            return
        if fresh or self._watch.exhausted:
            self._touched = None  # nobody told which entries were touched
        self._reconciler.retry()
        self._files.changed = True  # an interpreter may lie on what was mounted or unmounted
        if trigger == "mount" and not fresh and self._attachment.mounted == before:
            self._pacing.look_later(time.monotonic())  # something else was mounted: a storm of that makes one look
            return
        # The first pass registers what was never there, however long the mount was waited for: no drift, no repair.
        self._make_pass(trigger if self._hot else "start", at_once=fresh and trigger != "resync")
        self._attachment.looked()

    def _look_at(self) -> float:
        return self._attachment.look_at(self._reconciler.config.policy.resync)

    def _make_pass(self, trigger: str, *, at_once: bool = False) -> None:
        """Look at everything and do what is due; ``at_once``: nobody can be at work on it yet."""
        if self._attachment.mounted is None:
            self._pacing.forget()  # what is open cannot be done, and would be due for ever
            return
        self._keep_state_dir()
        if self._files.changed:
            self._files.changed = False
            self._files.arm(self._reconciler.config)
            self._reconciler.retry(interpreters=True)
        began = time.monotonic()
        touched, self._touched = self._touched, set()
        at_once_due = Due.FORCED if trigger == "stop" else Due.QUIET

        def due(name: str) -> Due:
            return at_once_due if at_once else self._pacing.due(name)

        def allow(action: Action) -> bool:
            return trigger == "stop" or self._pacing.allow(action)

        def disturbed(name: str) -> bool:
            self._wrote += writer.take_wrote()
            self._heard.add(self._watch.read(self._take_wrote()))
            return self._heard.everything or name in self._heard.names

        try:
            with Instance(self._attachment.mounted) as instance:
                writer = Writer(instance)
                try:
                    result = self._reconciler.make_pass(
                        instance, writer, touched, due=due, disturbed=disturbed, allow=allow
                    )
                finally:
                    self._wrote += writer.take_wrote()
        except MountError as error:
            self._touched = None
            if trigger == "watch_lost":  # looking for it again has not helped: wait for the mount table, or resync
                self._attachment.mounted = None
                self._pacing.forget()
                self._report.trouble(str(error))
                self._tell()
            else:
                self._heard.lost = True  # the loop reacts to it
            return
        except WriteRefusedError as error:
            if self._hot is None and error.errno in (errno.EACCES, errno.EPERM):
                raise  # from the start nothing may be written, and no waiting will change that
            self._touched = None
            self._report.trouble(self._attachment.problem or str(error))
            self._pacing.forget()
            self._tell()
            return
        failed, pacing = self._reconciler.failed, self._pacing
        self._hot = HotPath(result.look, failed, pacing.may_bridge, pacing.may_switch)
        self._pacing.passed(result, failed, at_once=at_once, flushed=self._heard.flushed)
        if self._files.serve_in_our_place(result.look.providers(), self._reconciler.config):
            self._pacing.look_later(time.monotonic())
        self._persistence.want(result.look, self._reconciler.config, failed)
        self._report.trouble(self._attachment.problem)
        self._report.passed(trigger, result, time.monotonic() - began)
        self._tell(result)

    def _pause(self) -> None:
        """Obey what is paused now; what was open before is settled first, so that no stand-in stays meanwhile."""
        pauses = self._pauses.read()
        before = self._reconciler.pauses
        if pauses == before:
            return
        if pauses.until.keys() - before.until.keys():
            self._make_pass("pause", at_once=True)
        self._reconciler.pauses = pauses
        self._report.paused(pauses, before)
        self._make_pass("pause")
        self._tell()

    def _keep_state_dir(self) -> None:
        try:
            if self._lock.keep():
                self._report.state_dir_made_again()
                self._files.changed = True  # it is another directory to watch
                self._heard.files.add("pauses")  # and may say something already
        except StateError as error:
            self._report.state_dir_lost(str(error))

    def _load(self) -> None:
        self._notifier.send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            config = self._source.load()
        except ConfigError as error:
            self._report.config_rejected(str(error))
            self._files.arm(self._reconciler.config)
            self._tell()
        else:
            self._report.config_reloaded(config)
            self._reconciler.use(config)
            self._pacing.use(config.policy.settle)
            self._files.arm(self._reconciler.config)
            self._make_pass("reload", at_once=True)
            if self._attachment.mounted is None:
                self._tell()
        if self._ready:
            self._notifier.send("READY=1")

    def _stop(self) -> None:
        self._notifier.send("STOPPING=1")
        self._make_pass("stop", at_once=True)
        if self._reconciler.config.policy.on_stop is OnStop.REMOVE and self._attachment.mounted is not None:
            try:
                with Instance(self._attachment.mounted) as instance:
                    self._report.removed(*self._reconciler.remove_owned(instance, Writer(instance)))
            except BinfmtdError as error:
                self._report.trouble(str(error))
            self._tell()
        self._report.stopped()

    def _tell(self, result: PassResult | None = None) -> None:
        """Write the status, then say that we are ready: after the first pass, with proper names."""
        self._report.write(self._reconciler, self._attachment.mounted, self._pacing.contended())
        if not self._ready and result is not None and not self._pacing.open():
            self._ready = True
            self._notifier.send("READY=1")

    def _take_wrote(self) -> list[Wrote]:
        wrote, self._wrote = self._wrote, []
        return wrote
