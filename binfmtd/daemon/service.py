"""The daemon's life: start, wait, repair, settle, reload, stop.

One thread, the loop, makes all repairs, and it has one wait.  It is woken by

* inotify: the instance, an interpreter or the config changed;
* the mount table, a signal, or a result of work in the background;
* the next deadline: a name that is quiet now, the end of a backoff, `resync`, the watchdog.

After the start this thread touches only binfmt_misc, inotify and memory.  Other threads do everything else that may
block (`background`): they read and write files, look at interpreters, find or mount binfmt_misc, and write the log.
"""

import gc
import sys
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from binfmtd.daemon.background import Background
from binfmtd.daemon.boot_persistence import BootPersistence
from binfmtd.daemon.config_source import ConfigSource, ReadConfig
from binfmtd.daemon.config_watch import KEY as CONFIG_FILES
from binfmtd.daemon.config_watch import ConfigWatch
from binfmtd.daemon.exporter import Exporter
from binfmtd.daemon.host_facts import needs_native, paths_of
from binfmtd.daemon.inotify import Armed, InotifyWatcher
from binfmtd.daemon.instance_watch import InstanceWatch
from binfmtd.daemon.interpreter_files import InterpreterFiles
from binfmtd.daemon.look import ReconcileResult
from binfmtd.daemon.mount_watcher import MountWatcher
from binfmtd.daemon.pacing import Pacing
from binfmtd.daemon.pass_gate import Force, nothing
from binfmtd.daemon.pause_file import PauseFile, since_boot
from binfmtd.daemon.poller import Poller
from binfmtd.daemon.preload import cannot_load, preload
from binfmtd.daemon.probe_runner import ProbeRunner
from binfmtd.daemon.publisher import KEYS as PUBLISHED
from binfmtd.daemon.publisher import Publisher
from binfmtd.daemon.reconciler import Reconciler
from binfmtd.daemon.reporter import Reporter
from binfmtd.daemon.sd_notify import Notifier
from binfmtd.daemon.sealing import Sealing
from binfmtd.daemon.signals import Signals, reap_orphans
from binfmtd.daemon.state_dir import Lock
from binfmtd.daemon.state_writer import KEY as STATE_FILES
from binfmtd.daemon.state_writer import StateWriter, Written
from binfmtd.daemon.throttle import EventThrottle
from binfmtd.daemon.timers import Timer, Timers
from binfmtd.daemon.trigger import Trigger
from binfmtd.daemon.watchdog import Watchdog
from binfmtd.daemon.worker import OPENING, Worker
from binfmtd.errors import ConfigError, MountError
from binfmtd.host.scheduling import ordinary_time, use_real_time
from binfmtd.kernel.mount import Mounted, Where
from binfmtd.model.config import Config, OnStop
from binfmtd.model.pause import Pauses

CALM = 1.0  # seconds: of interpreters that arrive at shorter intervals, only the first is looked at at once
# Python's default of 5 ms before another thread runs would make a repair take ten times as long.
_SWITCH_SECONDS = 0.0001
_FIRST_LOOK = 2.0  # seconds that the start waits for interpreters
_VERIFIED = 1.0  # seconds from one look at interpreters to the next, while no events are read
_WRITTEN = 0.2  # seconds that the start, a new config and another instance wait for the ledger
_FIRST_PUBLISHED = 5.0  # seconds that the first READY=1 waits for watches, status file, textfile and HTTP
_STOPPING = 0.5  # seconds that the end searches for an instance that may be mounted again
# Keys of work in the background: of each key one piece is done at a time.
_MOUNT, _CONFIG, _PAUSES, _PERSISTENT, _MODULES = "mount", "config", "pauses", "persistent", "modules"
_STATE_WATCH = "state directory's watches"
_REST_SECONDS = 1.0  # after a module could not be loaded
_NEVER = float("inf")


class Service:
    """The loop, and everything else that lives as long as the daemon."""

    def __init__(
        self,
        source: ConfigSource,
        where: Where,
        reconciler: Reconciler,
        reporter: Reporter,
        signals: Signals,
        boot_persistence: BootPersistence,
        lock: Lock,
        pauses: PauseFile,
        probe_runner: ProbeRunner,
        background: Background,
    ) -> None:
        """Prepare the loop; ``where`` binfmt_misc is mounted, or is to be mounted."""
        self._source = source
        self._reconciler = reconciler
        self._report = reporter
        self._signals = signals
        self._boot_persistence = boot_persistence
        self._pauses = pauses
        self._probe_runner = probe_runner
        self._background = background
        self._notifier = Notifier()
        self._watchdog = Watchdog(self._notifier)
        self._watch = InotifyWatcher()
        self._interpreters = InterpreterFiles(background, self._watch, self._looked_at_interpreters, reporter.unwatched)
        reconciler.facts.use(self._interpreters)
        self._config_watch = ConfigWatch(
            background, self._watch, source.watched, reporter.unwatched, self._ask_for_reload
        )
        self._mounts = MountWatcher()
        self._wait = Poller(self._mounts.descriptor, self._signals.descriptor, background.descriptor)
        self._instance_watch = InstanceWatch(where, self._watch, self._wait)
        self._sealing = Sealing(background, reporter)
        self._pacing = Pacing(reconciler.states, reconciler.config.policy.settle, reporter)
        self._throttle = EventThrottle()
        self._worker = Worker(
            reconciler, self._instance_watch, self._sealing, self._watch, self._pacing, self._throttle, reporter
        )
        files = (reconciler.ledger.file, reconciler.foreign_entries.file, reporter.status)
        self._exporter = Exporter(reporter, self._wait, background)
        self._state = StateWriter(background, lock, files, self._state_written, reporter.flush)
        self._publisher = Publisher(background, self._notifier, self._state, self._exporter, reporter.probe)
        self._started = False
        self._started_by = _NEVER  # when the start ends even if something is not published
        self._loaded = False  # the modules that a reload can need
        self._ready = False
        self._trigger: Trigger | None = None  # of the search for the mount that is being made
        self._prepared: Config | None = None  # in force as soon as the ledger contains its intents
        self._doubted: frozenset[str] = frozenset()  # interpreters that the kernel has not opened yet
        self._verified_at = float("-inf")  # when interpreters were last looked at while no events were read
        self._arrived_at = float("-inf")  # when an interpreter was last put in its place
        self._after_look: tuple[Trigger, bool] | None = None  # arguments of the pass that waits for interpreters
        self._timers = self._make_timers()
        self._reload_began = 0.0  # seconds since the boot
        self._reload: Config | None = None  # read, and in force as soon as its interpreters have been looked at

    def run(self, *, real_time: bool = False) -> None:
        """Run until SIGTERM or SIGINT.  Raises WriteRefusedError if this process may not write to binfmt_misc at all.

        ``real_time``: wait, and repair, with real-time priority if that is allowed.
        """
        self._start()
        if real_time:
            self._use_real_time()
        gc.freeze()  # what is loaded by now is no garbage, so a collection in a repair need not scan it
        gc.enable()
        while not self._signals.stop:
            try:
                self._serve()
            except ImportError as error:
                self._report.restart_needed(cannot_load(error))
                self._wait.until(time.monotonic() + _REST_SECONDS)  # what is due stays due
        self._stop()

    def _serve(self) -> None:
        """Run the loop until a signal ends it."""
        while not self._signals.stop:
            deadline, read_at = self._timers.next(), self._throttle.read_at
            if self._worker.events:
                deadline = min(deadline, read_at)
            began = time.thread_time()  # before the wait, which takes no CPU time: after it a repair may be urgent
            woken = self._wait.until(deadline, read_at)
            wasted = False
            if self._watch.descriptor in woken:
                self._worker.read_events()
                wasted = self._watch.saw_unrelated
            now = time.monotonic()
            if self._worker.events:
                wasted = now >= read_at and not self._react()
            if wasted:
                self._throttle.charge_look(time.thread_time() - began, now)
            if self._background.descriptor in woken:
                self._background.deliver()
            if self._signals.descriptor in woken:
                self._obey()
            if self._mounts.descriptor in woken:
                self._mounts.drain()
            self._timers.run(time.monotonic())
            self._end_turn()

    def _make_timers(self) -> Timers:
        """List every deadline of the loop, those first that delay no other."""
        return Timers(
            [
                Timer(lambda: self._watchdog.due_at, self._watchdog.ping),
                Timer(self._pacing.restore_at, self._restore_withheld),
                Timer(lambda: self._throttle.check_at, self._check_identities),
                Timer(lambda: self._background.due_at, self._background.retry),
                Timer(lambda: self._interpreters.due_at, self._interpreters.step),
                Timer(lambda: self._state.due_at, self._state.begin_overdue),
                Timer(lambda: self._started_by, self._end_start),
                Timer(lambda: self._mounts.due_at, self._mount_table_changed),
                Timer(self._pauses_due_at, self._end_pauses),
                Timer(lambda: self._probe_runner.due_at, self._probe_runner.step),
                Timer(lambda: self._sealing.due_at, self._check_seal),
                Timer(self._report.due_at, self._tell_due),
                Timer(self._look_at, self._resync),
                Timer(lambda: _NEVER if self._after_look else self._pacing.deadline(), self._settle),
            ]
        )

    def _start(self) -> None:
        """Make the first pass.  No handlers are kept yet, so this may wait for files and for the mount."""
        sys.setswitchinterval(_SWITCH_SECONDS)
        self._reconciler.use_pauses(self._pauses.read())
        self._report.pauses_unread(self._pauses.problem)
        self._probe_runner.begin()
        self._instance_watch.begin()
        self._use_state_files(self._arm_state_files())
        self._config_watch.arm(wanted=self._reconciler.config.policy.reload_on_change)
        self._keep_interpreters()
        self._interpreters.look()
        found = self._instance_watch.find()
        self._interpreters.wait(_FIRST_LOOK)
        if self._attach(found) is not None:
            self._worker.look()  # foreign entries name more interpreters
            self._keep_interpreters()
            self._interpreters.look()
            self._interpreters.wait(_FIRST_LOOK)
            self._reconciler.intend()
            self._state.sync()
            self._background.finish([STATE_FILES], _WRITTEN)
            self._pass(Trigger.START, at_once=True)
            self._instance_watch.looked()
        for part in (self._probe_runner, self._sealing):
            part.on_change(self._tell)  # not before there is a status
        self._worker.limit_opens(OPENING)
        self._started_by = time.monotonic() + _FIRST_PUBLISHED
        self._end_start(time.monotonic())

    def _end_start(self, now: float) -> None:
        """Send READY=1 when all that other programs read has been written, or after five seconds without that."""
        if self._started or (now < self._started_by and any(map(self._background.busy, (CONFIG_FILES, *PUBLISHED)))):
            return
        self._started_by, self._started = _NEVER, True
        if self._ready:
            self._say_ready()
        self._load_modules()

    def _load_modules(self) -> None:
        """Load what a reload can need, unless that has been done: an upgrade may replace its files."""

        def loaded(all_of_them: bool) -> None:  # noqa: FBT001  a callback's only argument
            self._loaded = all_of_them
            if all_of_them:
                self._report.modules_loaded()

        if not self._loaded:
            self._background.run(_MODULES, lambda: preload(self._report.restart_needed), loaded)

    def _use_real_time(self) -> None:
        try:
            use_real_time()
        except OSError as error:
            self._report.real_time_refused(error)
        else:
            self._signals.expect_real_time_to_end()
            self._report.real_time()

    # Reactions to what has woken the loop

    def _react(self) -> bool:
        """Handle the events that were read; return False if they called for no write to the instance."""
        events, reaction = self._worker.repair()
        now = time.monotonic()
        if reaction.found:
            self._probe_runner.want()
            self._tell()
        if "pauses" in events.files:
            self._read_pauses()
        if "probed" in events.files:
            self._probe_runner.take_in()
        if "config" in events.files:
            self._ask_for_reload()
        if events.interpreters:
            first, self._arrived_at = now - self._arrived_at >= CALM, now if events.arrived else self._arrived_at
            if (events.arrived and first) or self._pacing.drifting():
                self._interpreters.look()
            self._pacing.look_later(now)
        if events.overflow:
            self._worker.read_all_next()
            self._reconcile(Trigger.OVERFLOW)
        if events.lost:
            self._report.watch_lost()
            self._look_for_mount(Trigger.WATCH_LOST)
        self._check_seal()  # another process could write only while it was open
        return bool(reaction.bridged or reaction.kept or reaction.ended)

    def _looked_at_interpreters(self, news: bool) -> None:  # noqa: FBT001  a callback's only argument
        """Continue what waited for the interpreters' files; ``news``: some of them have changed."""
        reload, self._reload = self._reload, None
        after, self._after_look = self._after_look, None
        if reload is not None:
            self._prepare(reload)
        elif after is not None:
            self._reconciler.retry(interpreters=news)
            self._pass(after[0], at_once=after[1])
        elif news:
            self._reconciler.interpreter_arrived()
            self._serve_upgraded()
            self._reconciler.retry(interpreters=True)
            self._pacing.look_later(time.monotonic())
        elif self._pacing.drifting():
            self._serve_upgraded()
        if self._interpreters.out_of_date:  # another event came meanwhile
            self._pacing.look_later(time.monotonic())

    def _serve_upgraded(self) -> None:
        """Register stand-ins for what is stale or missing, after a look at interpreters; the rest waits for quiet."""
        if self._instance_watch.mounted is None or not self._worker.has_looked:
            return
        began = time.monotonic()
        with ordinary_time():
            result = self._worker.reconcile(Trigger.INTERPRETER)
        if result is not None:
            self._report.passed(Trigger.INTERPRETER, result, time.monotonic() - began)
            self._tell(result)

    def _obey(self) -> None:
        self._signals.drain()
        if self._signals.take_child():
            self._probe_runner.reap()
            reap_orphans()
        if self._signals.take_real_time_ended():
            self._report.real_time_ended()
        if self._signals.take_reload():
            self._ask_for_reload()

    # What is due

    def _restore_withheld(self, now: float) -> None:
        """Register the stand-ins that were withheld."""
        if self._worker.check_identities(self._pacing.take_withheld()):
            self._tell()
        self._pacing.look_later(now)  # a pass repairs entries that exist, but are not as declared

    def _check_identities(self, now: float) -> None:
        """Compare the inode numbers of the declared names, while no events are read."""
        cpu = time.thread_time()
        if news := self._worker.check_identities():
            self._tell()
        self._throttle.checked(0.0 if news else time.thread_time() - cpu, now)
        if now - self._verified_at >= _VERIFIED and not self._interpreters.looking:
            self._verified_at = now
            self._interpreters.look(everything=True)  # events about their files are not read, either

    def _mount_table_changed(self, _: float) -> None:
        self._mounts.begin()
        self._look_for_mount(Trigger.MOUNT)

    def _end_pauses(self, _: float) -> None:
        self._use_pauses(self._reconciler.pauses.at(since_boot()))
        self._read_pauses()

    def _tell_due(self, now: float) -> None:
        if self._report.tell_due(now):
            self._tell()

    def _resync(self, _: float) -> None:
        self._load_modules()
        self._read_pauses()
        self._exporter.retry()
        self._worker.read_all_next()
        self._look_for_mount(Trigger.RESYNC)

    def _settle(self, now: float) -> None:
        """End backoffs, and write what may be written now."""
        if self._pacing.end_contentions(now):
            self._tell()
        if self._after_look is None and self._pacing.anything_due(now):
            self._reconcile(Trigger.QUIET)

    def _end_turn(self) -> None:
        """Do what follows each wake-up."""
        self._doubt_interpreters()
        if not self._started:
            self._end_start(time.monotonic())
        if not (self._interpreters.at_work or self._config_watch.arming or self._background.busy(_STATE_WATCH)):
            self._watch.tidy()

    def _doubt_interpreters(self) -> None:
        """Look at interpreters that the kernel has not opened in time."""
        hanging = self._worker.opens.hanging()
        if doubted := hanging - self._doubted:
            self._interpreters.doubt(doubted)
        self._doubted = hanging

    # The mount

    def _look_for_mount(self, trigger: Trigger) -> None:
        """Search for the instance in the background; ``trigger`` is the reason."""
        if trigger is Trigger.MOUNT:  # which may call for no look at everything, and must not delay the next one
            self._instance_watch.open_watch()
        else:
            self._instance_watch.begin()
        if self._trigger is None or trigger is not Trigger.MOUNT:
            self._trigger = trigger
        began = time.monotonic()

        def found(mounted: Mounted | MountError) -> None:
            trigger, self._trigger = self._trigger or Trigger.MOUNT, None
            self._found_mount(mounted, trigger)
            self._mounts.looked(began)

        self._background.run(_MOUNT, self._instance_watch.find, found)

    def _found_mount(self, found: Mounted | MountError, trigger: Trigger) -> None:
        """Watch the instance, and only then look at it, so that no change goes unnoticed."""
        if trigger is not Trigger.MOUNT:
            self._sealing.retry()
        before = self._instance_watch.mounted
        fresh = self._attach(found)
        if fresh is None or trigger is Trigger.STOP:
            return
        at_once = fresh and trigger is not Trigger.RESYNC
        if at_once:
            self._pacing.forget()  # the open drifts were those of another instance
        if fresh or self._watch.exhausted:
            self._worker.read_all_next()
        unchanged = not fresh and self._instance_watch.mounted == before
        if trigger is Trigger.MOUNT and unchanged and not self._instance_watch.looks_instead:
            self._interpreters.look(everything=True)  # one may lie on what was mounted or unmounted
            if self._reconciler.failed:  # perhaps because of a mount's noexec
                self._reconciler.retry()
                self._pacing.look_later(time.monotonic())
            return
        if trigger is Trigger.MOUNT:
            self._instance_watch.begin()
        self._reconciler.retry()
        self._exporter.retry()
        self._interpreters.look(everything=True)
        # The first pass registers what was never there, however long it waited for the mount: that is no repair.
        trigger = trigger if self._worker.has_looked else Trigger.START
        if fresh:
            self._worker.look()  # so that the ledger belongs to this instance
            self._reconciler.intend()
            device = self._device()
            self._state.sync(lambda: self._make_first_pass(trigger, device, at_once=at_once), _WRITTEN)
        else:
            self._reconcile(trigger, at_once=at_once)
        self._instance_watch.looked()

    def _make_first_pass(self, trigger: Trigger, device: int | None, *, at_once: bool) -> None:
        """Make the pass that registers everything in another instance, if the daemon is still attached to that one."""
        if self._device() == device:
            self._reconcile(trigger, at_once=at_once)

    def _device(self) -> int | None:
        """Return the device number of the instance that the daemon is attached to; None if there is none."""
        return None if self._instance_watch.mounted is None else self._instance_watch.mounted.device

    def _attach(self, found: Mounted | MountError) -> bool | None:
        """Watch the instance that was found; return True if it is another or newly watched, None if there is none."""
        try:
            seen = found if isinstance(found, MountError) else self._keep_sealed(found) or found
            fresh = self._instance_watch.attach(seen)
        except MountError as error:
            self._pacing.forget()
            self._probe_runner.want()
            self._report.trouble(str(error))
            self._tell()
            return None
        if fresh:
            self._worker.forget_own_writes()
        return fresh

    def _keep_sealed(self, mounted: Mounted | None) -> Mounted | None:
        """Seal the instance or open it, as config and pauses require; return it as the daemon sees it then."""
        wanted, paused = self._reconciler.config.policy.sealed, bool(self._reconciler.pauses.until)
        if self._sealing.use(mounted, wanted=wanted, paused=paused):
            self._look_after_seal()
        return None if mounted is None else self._sealing.seen(mounted)

    def _check_seal(self, _: float = 0.0) -> None:
        if self._sealing.check():
            self._look_after_seal()

    def _look_after_seal(self) -> None:
        """Plan a look at everything: another process had opened the seal."""
        self._worker.read_all_next()
        self._pacing.look_later(time.monotonic())

    def _look_at(self) -> float:
        if self._trigger is not None:
            return _NEVER  # a look is under way
        return self._instance_watch.look_at(self._reconciler.config.policy.resync)

    # Passes

    def _reconcile(self, trigger: Trigger, *, at_once: bool = False) -> None:
        """Make a pass as soon as the interpreters that may have changed have been looked at."""
        if self._instance_watch.mounted is None:
            self._pacing.forget()  # open drifts cannot be repaired, and would be due for ever
            return
        if self._interpreters.out_of_date:
            self._interpreters.look()
        if self._interpreters.looking:
            self._after_look = (trigger, at_once or bool(self._after_look and self._after_look[1]))
        else:
            self._pass(trigger, at_once=at_once)

    def _pass(self, trigger: Trigger, *, at_once: bool = False, force: Force = nothing) -> None:
        """Make a pass now; ``at_once`` and ``force`` as in ``Worker.reconcile``."""
        if self._instance_watch.mounted is None:
            return
        began, cpu = time.monotonic(), time.thread_time()
        with ordinary_time():  # what is urgent has been done
            result = self._worker.reconcile(trigger, at_once=at_once, force=force)
        self._check_seal()  # a write may have left it open
        answer = self._worker.repair_pending() if force is nothing else None  # with `force` its stand-ins would stay
        if result is not None:
            if result.done or not self._ready:
                self._probe_runner.want()
            self._keep_interpreters()
            if self._interpreters.out_of_date:  # a foreign entry names one that was not looked at
                self._pacing.look_later(time.monotonic())
            self._keep_for_reboot(result)
            self._report.trouble(self._instance_watch.problem)
            self._report.passed(trigger, result, time.monotonic() - began)
        if answer is not None:
            self._worker.tell(answer)
        self._tell(result)
        if trigger is Trigger.QUIET and result is not None and not result.done:
            self._throttle.charge_pass(time.thread_time() - cpu, time.monotonic())

    def _keep_interpreters(self) -> None:
        """Keep facts about the interpreters of the config in force, and of one that is about to be."""
        configs = [self._reconciler.config, *([] if self._reload is None else [self._reload])]
        self._interpreters.keep(path for config in configs for path in paths_of(config))

    def _keep_for_reboot(self, result: ReconcileResult) -> None:
        if self._boot_persistence.off:
            return
        look, config, failed = result.look, self._reconciler.config, frozenset(self._reconciler.failed)

        def done(worked: bool) -> None:  # noqa: FBT001  a callback's only argument
            if worked:
                self._report.kept_for_reboot(self._boot_persistence)
                self._tell()

        self._background.run(_PERSISTENT, lambda: self._boot_persistence.bring(look, config, failed), done)

    # Pauses

    def _pauses_due_at(self) -> float:
        return _NEVER if self._background.busy(_PAUSES) else self._pauses.due_at(self._reconciler.pauses)

    def _read_pauses(self) -> None:
        before = self._reconciler.pauses

        def read(pauses: Pauses) -> None:
            if self._report.pauses_unread(self._pauses.problem):
                self._tell()
            self._use_pauses(pauses)

        self._background.run(_PAUSES, lambda: self._pauses.read(before), read)

    def _use_pauses(self, pauses: Pauses) -> None:
        """Put pauses in force.  First settle the open drifts of newly paused names, so that no stand-in stays."""
        before = self._reconciler.pauses
        if pauses == before:
            return
        if pauses.until.keys() - before.until.keys():
            self._pass(Trigger.PAUSE, force=pauses.hold)
        self._reconciler.use_pauses(pauses)
        self._report.paused(pauses, before)
        self._instance_watch.regard_as(self._keep_sealed(self._instance_watch.mounted))
        self._pass(Trigger.PAUSE)
        self._tell()

    def _arm_state_files(self) -> dict[str, Armed]:
        """Arm the watches on files that commands write in the state directory; in a thread once the daemon runs."""
        files = {"pauses": self._pauses.watched, "probed": self._probe_runner.watched}
        return {owner: self._watch.arm_all(partial(dict, directories)) for owner, directories in files.items()}

    def _use_state_files(self, files: dict[str, Armed]) -> None:
        for owner, armed in files.items():
            self._watch.use(owner, armed.names)
            self._report.unwatched(armed.unwatched)

    def _state_written(self, written: Written) -> None:
        self._report.state_written()
        if written.problem is not None:
            self._report.state_dir_lost(written.problem)
        if written.made_again:
            self._report.state_dir_made_again()
            self._background.run(_STATE_WATCH, self._arm_state_files, self._use_state_files)  # it is another directory
            self._read_pauses()  # which may contain pauses already
            self._probe_runner.take_in()

    # The config

    def _ask_for_reload(self) -> None:
        """Send RELOADING=1 at once, and read the config in the background.

        systemd, whose ExecReload may be over by now, then waits until the config is read.
        """
        self._notifier.send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        if self._reconciler.config.policy.reload_on_change:
            self._config_watch.arm(wanted=True)  # a directory may be another one than before
        self._background.run(_CONFIG, self._read_config, self._config_read)

    def _read_config(self) -> ReadConfig:
        read = self._source.load_when_quiet()
        if isinstance(read.config, Config) and needs_native(read.config):
            self._reconciler.facts.native(None)
        return read

    def _config_read(self, read: ReadConfig) -> None:
        config = read.config
        if isinstance(config, ConfigError):
            self._reload = None  # the files are not valid any more
            if self._prepared is not None:
                self._use(self._prepared)
            self._report.config_rejected(str(config), read.began)
            self._config_watch.arm(wanted=self._reconciler.config.policy.reload_on_change)
            self._tell_then_ready()
            return
        self._reload, self._reload_began = config, read.began
        self._keep_interpreters()
        self._interpreters.look(everything=True)
        if not self._interpreters.looking:
            self._looked_at_interpreters(False)  # noqa: FBT003  a callback's only argument

    def _prepare(self, config: Config) -> None:
        """Put a config in force, whose interpreters have been looked at, as soon as the ledger contains its intents.

        If this daemon is then killed, the next one finds in the ledger that the entries are its own.  A disk that hangs
        delays this by 0.2 s at most.
        """
        self._reconciler.use(config)
        self._reconciler.intend()
        self._prepared = config
        self._state.sync(lambda: self._use(config), _WRITTEN)

    def _use(self, config: Config) -> None:
        """Put a prepared config in force, unless that has been done or another one has been prepared."""
        if config is not self._prepared:
            return
        self._prepared = None
        self._report.config_reloaded(config, self._reload_began)
        self._boot_persistence.retry()
        self._exporter.retry()
        self._pacing.use(config.policy.settle)
        self._probe_runner.use(config.policy.probe)
        self._config_watch.arm(wanted=config.policy.reload_on_change)
        self._sealing.retry()
        self._instance_watch.regard_as(self._keep_sealed(self._instance_watch.mounted))
        self._pass(Trigger.RELOAD, at_once=True)
        self._tell_then_ready()

    # The end, and publishing

    def _stop(self) -> None:
        self._notifier.send("STOPPING=1")
        self._probe_runner.stop()
        if self._instance_watch.mounted is None:  # binfmt_misc may be mounted again
            self._look_for_mount(Trigger.STOP)
            self._background.finish([_MOUNT], _STOPPING)
        self._after_look = None
        self._pass(Trigger.STOP, force=lambda _: True)
        if self._reconciler.config.policy.on_stop is OnStop.REMOVE:
            self._worker.remove_owned()
            self._sealing.open_for_good()
        self._tell()
        self._publisher.close()
        self._report.stopped()

    def _document(self) -> Mapping[str, Any]:
        return self._report.document(self._reconciler, self._instance_watch.mounted, self._pacing.contended())

    def _tell(self, result: ReconcileResult | None = None) -> None:
        """Publish the status; send READY=1 as well after the first pass that leaves no drift open."""
        first = not self._ready and result is not None and self._pacing.is_settled()
        self._ready |= first
        if first:
            self._tell_then_ready()
        else:
            self._publisher.publish(self._document(), self._reconciler.config, started=self._ready)

    def _tell_then_ready(self) -> None:
        """Publish the status, and send READY=1 when that has been written, or after a second without that."""
        ready = self._ready and self._started  # the start itself waits until all is published
        then = self._say_ready if ready else None
        self._publisher.publish(self._document(), self._reconciler.config, started=self._ready, then=then)

    def _say_ready(self) -> None:
        self._notifier.send("READY=1")
