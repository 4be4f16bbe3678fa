"""The daemon's life: start, wait, react, settle, reload, stop.

One thread and one wait.  What wakes it: inotify (somebody touched the instance, an interpreter or the config), the
mount table, a signal, or the next deadline (a name that is quiet now, the end of a back-off, `resync`).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from binfmtd.daemon.contention import Contention
from binfmtd.daemon.facts import paths_of
from binfmtd.daemon.hot_path import HotPath, Reaction
from binfmtd.daemon.mount_table import MountTable
from binfmtd.daemon.notify import Notifier
from binfmtd.daemon.reconcile import PassResult, Reconciler
from binfmtd.daemon.reporter import Reporter
from binfmtd.daemon.settling import Settling
from binfmtd.daemon.signals import Signals, reap_orphans
from binfmtd.daemon.wait import Wait
from binfmtd.daemon.watch import Heard, Watch
from binfmtd.errors import BinfmtdError, ConfigError, MountError, WriteRefusedError
from binfmtd.kernel.converge import Due
from binfmtd.kernel.instance import Instance
from binfmtd.kernel.interpreters import watched
from binfmtd.kernel.mount import Mounted, find_or_mount
from binfmtd.kernel.write import Writer, Wrote
from binfmtd.model.config import Config, OnStop
from binfmtd.model.drift import Act, Action
from binfmtd.model.standin import is_stand_in

EVERYTHING = ""  # in Settling: the look at everything
_CONFIG_AGE = 0.2  # seconds that a config must have been left alone before a reload reads it
_CONFIG_PATIENCE = 2.0  # seconds after which it is read all the same


@dataclass(frozen=True, slots=True)
class ConfigSource:
    """Where the config comes from; handed in, so that the daemon knows neither files nor TOML."""

    load: Callable[[], Config]  # raises ConfigError
    age: Callable[[], float]  # seconds since somebody last changed it
    watched: Callable[[], dict[str, set[str]]]  # directory -> names whose change means another config


class Service:
    """Everything that lives as long as the daemon."""

    def __init__(
        self,
        source: ConfigSource,
        directory: str | None,
        reconciler: Reconciler,
        reporter: Reporter,
        signals: Signals,
    ) -> None:
        self._source = source
        self._directory = directory
        self._reconciler = reconciler
        self._report = reporter
        self._signals = signals
        self._notifier = Notifier()
        self._watch = Watch()
        self._mounts = MountTable()
        self._wait = Wait(self._watch.descriptor, self._mounts.descriptor, self._signals.descriptor)
        self._settling = Settling(reconciler.config.policy.settle)
        self._contention = Contention()
        self._mounted: Mounted | None = None
        self._hot: HotPath | None = None
        self._wrote: list[Wrote] = []
        self._heard = Heard()  # what came up while a pass was under way
        self._touched: set[str] | None = None  # entries to read again at the next full look; None: all
        self._flushed: set[str] = set()  # drifts that a flush began: they count for nobody
        self._resync_at = 0.0
        self._reload: tuple[float, float] | None = None  # when to look, and since when it is wanted
        self._ready = False

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        self._watch_files()
        self._attach("start")
        while not self._signals.stop:
            woken = set() if self._heard else self._wait.until(self._deadline())
            now = time.monotonic()
            if self._watch.descriptor in woken:
                self._heard.add(self._watch.read(self._take_wrote()))
            if self._heard:
                self._react(now)
            if self._signals.descriptor in woken:
                self._signals.drain()
                self._obey()
            if self._mounts.descriptor in woken:
                self._mounts.drain()
                self._attach("mount")
            self._when_due()
        self._stop()

    # What wakes it

    def _react(self, now: float) -> None:
        heard, self._heard = self._heard, Heard()
        reaction = Reaction()
        if self._hot is not None and self._mounted is not None and (heard.names or heard.everything):
            try:
                with Instance(self._mounted) as instance:
                    writer = Writer(instance)
                    try:
                        reaction = self._hot.react(heard, instance, writer)
                    finally:
                        self._wrote += writer.take_wrote()
            except MountError:
                heard.lost = True
            except WriteRefusedError as error:
                self._report.trouble(str(error))
        self._report.reacted(reaction, time.monotonic() - now, self._settling.pending())
        self._note(heard, reaction, now)
        if "config" in heard.files:
            self._want_reload(now)
        if "interpreters" in heard.files:
            self._watch_files()
            self._reconciler.retry(interpreters=True)
            self._make_pass("interpreter")
        if heard.overflow:
            self._touched = None
            self._make_pass("overflow")
        if heard.lost:
            self._report.watch_lost()
            self._attach("watch_lost")

    def _note(self, heard: Heard, reaction: Reaction, now: float) -> None:
        """Keep the clocks of quiet: whose peace was disturbed, and what now waits for it."""
        if heard.names or heard.everything:
            self._settling.stirred([*heard.names, EVERYTHING], now, everything=heard.everything)
            self._settling.drifted(EVERYTHING, now)
        if self._touched is not None:
            self._touched |= heard.names
        self._reconciler.failed |= reaction.refused
        waiting = self._settling.pending()
        for name in reaction.bridged:
            if name in waiting:  # a second stand-in for the same drift: somebody removed the first
                self._count(name, now)
        for name in reaction.found:
            if heard.flushed and name not in waiting:
                self._flushed.add(name)
            self._settling.drifted(name, now)
        for name in reaction.ended:
            self._count(name, now, flushed=heard.flushed)

    def _obey(self) -> None:
        if self._signals.child:
            self._signals.child = False
            reap_orphans()
        if self._signals.reload:
            self._signals.reload = False
            self._want_reload(time.monotonic())

    def _want_reload(self, now: float) -> None:
        self._reload = (now, self._reload[1] if self._reload else now)

    def _deadline(self) -> float:
        now_or_later = [self._resync_at, self._contention.end_at()]
        now_or_later += [self._allowed_at(name) for name in self._settling.pending()]
        if self._reload:
            now_or_later.append(self._reload[0])
        return min(now_or_later)

    def _when_due(self) -> None:
        now = time.monotonic()
        if self._reload and now >= self._reload[0]:
            self._load(now, since=self._reload[1])
        for name in self._contention.over(now):
            self._report.contention_ended(name)
        if now >= self._resync_at:
            self._watch_files()
            self._reconciler.retry(interpreters=True)
            self._touched = None
            self._attach("resync")
        elif any(now >= self._allowed_at(name) for name in self._settling.pending()):
            self._make_pass("quiet")

    # The mount

    def _attach(self, trigger: str) -> None:
        """Find the instance, arm the watch, and only then look: so nothing falls between."""
        self._put_off_resync()
        try:
            self._mounted = find_or_mount(self._directory)
        except MountError as error:
            self._mounted = None
            self._watch.forget_instance()
            self._report.trouble(str(error))
            self._tell()
            return
        where = self._mounted.directory
        trouble = (
            f"{where} is mounted read-only: run `mount -o remount,rw {where}`" if self._mounted.read_only else None
        )
        try:
            fresh = self._watch.watch_instance(where)
        except OSError as error:
            fresh = True
            seconds = self._reconciler.config.policy.resync
            trouble = f"{where}: no inotify watch ({error}): looking every {seconds:g} s instead"
        self._report.trouble(trouble)
        if fresh:
            self._touched = None
        self._reconciler.retry()
        self._make_pass(trigger, at_once=fresh)

    # The pass

    def _make_pass(self, trigger: str, *, at_once: bool = False) -> PassResult | None:
        """Look at everything and do what is due; ``at_once``: nobody can be at work on it yet."""
        if self._mounted is None:
            return None
        began = time.monotonic()
        touched, self._touched = self._touched, set()

        def due(name: str) -> Due:
            now = time.monotonic()
            if not at_once and now < self._allowed_at(name):
                return Due.LATER
            return Due.FORCED if trigger == "stop" or self._settling.forced(name, now) else Due.QUIET

        def disturbed(name: str) -> bool:
            self._wrote += writer.take_wrote()
            self._heard.add(self._watch.read(self._take_wrote()))
            return self._heard.everything or name in self._heard.names

        try:
            with Instance(self._mounted) as instance:
                writer = Writer(instance)
                try:
                    result = self._reconciler.make_pass(
                        instance, writer, touched, due=due, disturbed=disturbed, allow=self._allow
                    )
                finally:
                    self._wrote += writer.take_wrote()
        except MountError:
            self._heard.lost = True  # react to it in the loop
            self._touched = None
            return None
        except WriteRefusedError as error:
            self._touched = None
            self._report.trouble(str(error))
            self._settling = Settling(self._reconciler.config.policy.settle)
            self._tell()
            return None
        self._hot = HotPath(result.look, self._may_bridge, self._may_switch)
        self._close(result, trigger, at_once=at_once)
        self._report.passed(trigger, result, time.monotonic() - began)
        self._tell(result)
        return result

    def _close(self, result: PassResult, trigger: str, *, at_once: bool) -> None:
        """Bring the clocks up to date with what a pass left."""
        now = time.monotonic()
        self._settling.ended(EVERYTHING)
        open_names = {action.entry for action in result.look.plan.actions} - self._reconciler.failed.keys()
        repairing = trigger not in ("start", "reload", "interpreter")
        for action in result.done:
            if repairing and action.entry not in open_names and not is_stand_in(action.entry):
                self._count(action.entry, now, flushed=at_once or action.entry in self._flushed)
        for name in self._settling.pending() - open_names:
            self._settling.ended(name)
            self._flushed.discard(name)
        for name in open_names:
            self._settling.drifted(name, now)

    def _count(self, name: str, now: float, *, flushed: bool = False) -> None:
        self._report.repaired(name)
        if not flushed and self._contention.repaired(name, now):
            self._report.contention_started(name)

    # Reload and stop

    def _load(self, now: float, since: float) -> None:
        age = self._source.age()
        if age < _CONFIG_AGE and now - since < _CONFIG_PATIENCE:
            self._reload = (now + _CONFIG_AGE - max(age, 0.0), since)
            return
        self._reload = None
        self._notifier.send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            config = self._source.load()
        except ConfigError as error:
            self._report.config_rejected(str(error))
            self._watch_files()
            self._tell()
        else:
            self._report.config_reloaded(config)
            self._reconciler.use(config)
            self._settling.settle = config.policy.settle
            self._watch_files()
            self._make_pass("reload", at_once=True)
        self._notifier.send("READY=1")

    def _watch_files(self) -> None:
        """Watch where interpreters are or would appear, and the config if it asks for that."""
        paths = paths_of(self._reconciler.config)
        directories = watched(paths)
        unwatched = self._watch.watch_files("interpreters", directories)
        if (now := watched(paths)) != directories:  # something moved between the walk and the watch
            unwatched = self._watch.watch_files("interpreters", now)
        wanted = self._source.watched() if self._reconciler.config.policy.reload_on_change else {}
        unwatched += self._watch.watch_files("config", wanted)
        self._report.unwatched(unwatched)

    def _stop(self) -> None:
        self._notifier.send("STOPPING=1")
        self._make_pass("stop", at_once=True)
        if self._reconciler.config.policy.on_stop is OnStop.REMOVE and self._mounted is not None:
            try:
                with Instance(self._mounted) as instance:
                    self._report.removed(self._reconciler.remove_owned(instance, Writer(instance)))
            except BinfmtdError as error:
                self._report.trouble(str(error))
        self._report.stopped()

    # Small things

    def _tell(self, result: PassResult | None = None) -> None:
        """Write the status, then say that we are ready: after the first pass, with proper names."""
        self._report.write(self._reconciler, self._mounted, self._contention)
        if not self._ready and result is not None and not self._settling.pending():
            self._ready = True
            self._notifier.send("READY=1")

    def _allowed_at(self, name: str) -> float:
        return max(self._settling.due_at(name), self._contention.allowed_at(name))

    def _may_switch(self, name: str) -> bool:
        return time.monotonic() >= self._contention.allowed_at(name)

    def _may_bridge(self, name: str) -> bool:
        """In contention a new drift gets its stand-in at once; one that was taken away again has to wait."""
        if name in self._reconciler.failed:
            return False
        return self._may_switch(name) or name not in self._settling.pending()

    def _allow(self, action: Action) -> bool:
        bridging = action.act in (Act.REGISTER, Act.REPLACE)
        return self._may_bridge(action.entry) if bridging else self._may_switch(action.entry)

    def _put_off_resync(self) -> None:
        self._resync_at = time.monotonic() + self._reconciler.config.policy.resync

    def _take_wrote(self) -> list[Wrote]:
        wrote, self._wrote = self._wrote, []
        return wrote
