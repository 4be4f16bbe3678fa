"""A reload of the config, from SIGHUP or a changed file to the pass that registers its handlers.

1. ``begin`` sends RELOADING=1, and a thread reads the config.
2. A thread looks at the interpreters of the new config.
3. The ledger is written, with all handlers that may be registered.  If this daemon is then killed, the next one finds
   in the ledger that the entries are its own.  A disk that hangs delays this by 0.2 s at most.
4. The config is put in force, a pass is made, and READY=1 follows when the status has been written.

A config that is invalid changes nothing, and READY=1 follows, too.  If it could not be read, for want of descriptors
for example, it is read again every RETRY seconds, since no event reports that they are available again.
"""

import time
from collections.abc import Callable
from functools import partial

from binfmtd.daemon.background import Background
from binfmtd.daemon.config_source import ConfigSource, ReadConfig
from binfmtd.daemon.entries.reconciler import Reconciler
from binfmtd.daemon.interpreters.host_facts import needs_native
from binfmtd.daemon.interpreters.probe_runner import ProbeRunner
from binfmtd.daemon.metrics.exporter import Exporter
from binfmtd.daemon.mount_search import WRITTEN
from binfmtd.daemon.passes import Passes
from binfmtd.daemon.readiness import Readiness
from binfmtd.daemon.repairs.interpreter_looks import InterpreterLooks
from binfmtd.daemon.repairs.repair_schedule import RepairSchedule
from binfmtd.daemon.repairs.seal_keeper import SealKeeper
from binfmtd.daemon.reporting.reporter import Reporter
from binfmtd.daemon.sd_notify import Notifier
from binfmtd.daemon.state_files.boot_persistence import BootPersistence
from binfmtd.daemon.state_files.state_writer import StateWriter
from binfmtd.daemon.trigger import Trigger
from binfmtd.daemon.watches.config_watch import ConfigWatch
from binfmtd.daemon.watches.inotify import InotifyWatcher
from binfmtd.errors import Again, ConfigError
from binfmtd.model.config import Config
from binfmtd.model.entry import ObservedState

RETRY = 5.0  # seconds
_CONFIG = "config"  # key of the work in the background
_NEVER = float("inf")


class Reload:
    """The reload that is under way, if any, and the watches on the config's files."""

    def __init__(
        self,
        source: ConfigSource,
        background: Background,
        watch: InotifyWatcher,
        notifier: Notifier,
        reconciler: Reconciler,
        looks: InterpreterLooks,
        looked: Callable[[bool], None],
        state: StateWriter,
        seal: SealKeeper,
        schedule: RepairSchedule,
        passes: Passes,
        probe_runner: ProbeRunner,
        boot_persistence: BootPersistence,
        exporter: Exporter,
        report: Reporter,
        readiness: Readiness,
    ) -> None:
        """``looked`` is called if there is no interpreter to look at, as after a look."""
        self._source = source
        self._background = background
        self._notifier = notifier
        self._reconciler = reconciler
        self._looks = looks
        self._looked = looked
        self._state = state
        self._seal = seal
        self._schedule = schedule
        self._passes = passes
        self._probe_runner = probe_runner
        self._boot_persistence = boot_persistence
        self._exporter = exporter
        self._report = report
        self._readiness = readiness
        self._config_watch = ConfigWatch(background, watch, source, report.notices.unwatched, self.begin_by_change)
        self._began = source.began  # seconds since the boot: the last reading
        self.due_at = _NEVER  # the next reading of a config that could not be read (monotonic, in seconds)
        self._prepared: Config | None = None  # in force as soon as the ledger contains its intents

    @property
    def arming(self) -> bool:
        """True if a thread is arming the watches on the config's files."""
        return self._config_watch.arming

    def watch_files(self) -> None:
        """Watch the files of the config, if it says so."""
        self._config_watch.arm(wanted=self._reconciler.config.policy.reload_on_change, began=self._began)

    def retry_watches(self) -> None:
        """Watch the config's files again if some watches are missing, since the kernel had none left."""
        if self._config_watch.incomplete and not self.arming:
            self.watch_files()

    def begin(self) -> None:
        """Read the config as an administrator asks for it."""
        self._begin(self._read)

    def begin_by_change(self) -> None:
        """Read the config since a file has changed; if no file is left, the config stays in force.

        A tool may be about to put them there again.  The defaults, which ask for no watch, would stay in force for
        good.
        """
        self._begin(self._read_existing)

    def retry(self, _: float) -> None:
        """Read the config again, if it could not be read; report nothing unless it can be now."""
        self.due_at = _NEVER
        self._background.run(_CONFIG, self._read_existing, self._take_in_again)

    def _begin(self, read: Callable[[], ReadConfig]) -> None:
        """Send RELOADING=1 at once, and read the config in the background.

        systemd, whose ExecReload may be over by now, then waits until the config is read.
        """
        self.due_at = _NEVER
        self._notifier.send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        if self._reconciler.config.policy.reload_on_change:
            self._config_watch.arm(wanted=True)  # a directory may be another one than before
        self._background.run(_CONFIG, read, self._take_in)

    def prepare(self, config: Config) -> None:
        """Put a config in force, whose interpreters have been looked at, as soon as the ledger contains its intents."""
        self._reconciler.use(config)
        self._reconciler.intend()
        self._prepared = config
        self._state.sync(partial(self._use, config), WRITTEN)

    def _read(self) -> ReadConfig:
        read = self._source.load_when_quiet()
        if isinstance(read.config, Config) and needs_native(read.config):
            try:
                self._reconciler.facts.native(self._observed())
            except OSError as error:  # no process or descriptor is left
                why = f"it cannot be tried which architectures run natively: {error.strerror}"
                refusal = ConfigError(f"{why}: raise the limits of processes and open files")
                refusal.again = Again.LATER
                return read._replace(config=refusal)
        return read

    def _read_existing(self) -> ReadConfig:
        read = self._read()
        if self._reconciler.config.sources and isinstance(read.config, Config) and not read.config.sources:
            reason = "no file of the config is left: put it there again, or run `binfmtd reload` to use the defaults"
            return read._replace(config=ConfigError(reason))
        return read

    def _observed(self) -> ObservedState | None:
        """Return the entries that the last pass has seen: a program that one of them takes shows nothing."""
        last = self._report.status.assessment
        return None if last is None else last.observed

    def _take_in_again(self, read: ReadConfig) -> None:
        if isinstance(read.config, ConfigError) and read.config.again is Again.LATER:
            self.due_at = time.monotonic() + RETRY
        else:
            self._take_in(read)

    def _take_in(self, read: ReadConfig) -> None:
        config = read.config
        if isinstance(config, ConfigError):
            self._reject(config, read.began)
            return
        self._began = read.began
        if not self._looks.prepare(config):
            self._looked(False)  # noqa: FBT003  a callback's only argument

    def _reject(self, error: ConfigError, began: float) -> None:
        """Report an invalid config; one that was read before, and waits for interpreters, is no longer valid."""
        self._looks.take_prepared()
        if self._prepared is not None:
            self._use(self._prepared)
        self._began = began
        if error.again is Again.LATER:
            self.due_at = time.monotonic() + RETRY
        self._report.config_rejected(str(error), began)
        self.watch_files()
        self._readiness.reloaded()

    def _use(self, config: Config) -> None:
        """Put a prepared config in force, unless that has been done or another one has been prepared."""
        if config is not self._prepared:
            return
        self._prepared = None
        self._report.config_reloaded(config, self._began)
        self._boot_persistence.retry()
        self._exporter.retry()
        self._schedule.use(config.policy.settle)
        self._probe_runner.use(config.policy.probe)
        self._config_watch.arm(wanted=config.policy.reload_on_change, began=self._began)
        self._seal.retry()
        self._seal.apply()
        self._passes.make(Trigger.RELOAD, at_once=True, then=self._readiness.reloaded)
