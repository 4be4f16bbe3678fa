"""The parts of the daemon, and how they are connected.

Each part gets the parts that it calls.  Two parts are called back by a later one: a look at interpreters and a round of
written files end with what was connected after them.
"""

from binfmtd.daemon.background import Background
from binfmtd.daemon.config_source import ConfigSource
from binfmtd.daemon.entries.reconciler import Reconciler
from binfmtd.daemon.event_handler import EventHandler
from binfmtd.daemon.identity_checks import IdentityChecks, WithheldStandIns
from binfmtd.daemon.interpreter_news import InterpreterNews
from binfmtd.daemon.interpreters.interpreter_files import InterpreterFiles
from binfmtd.daemon.interpreters.probe_runner import ProbeRunner
from binfmtd.daemon.metrics.exporter import Exporter
from binfmtd.daemon.mount_search import MountSearch
from binfmtd.daemon.passes import Passes
from binfmtd.daemon.pause_control import PauseControl
from binfmtd.daemon.poller import Poller
from binfmtd.daemon.publisher import Publisher
from binfmtd.daemon.readiness import Readiness
from binfmtd.daemon.reload import Reload
from binfmtd.daemon.repairs.event_reader import EventReader, TouchedEntries
from binfmtd.daemon.repairs.instance_access import InstanceAccess
from binfmtd.daemon.repairs.instance_reconciler import InstanceReconciler
from binfmtd.daemon.repairs.interpreter_looks import InterpreterLooks
from binfmtd.daemon.repairs.repair_schedule import RepairSchedule
from binfmtd.daemon.repairs.seal_keeper import SealKeeper
from binfmtd.daemon.repairs.sealing import Sealing
from binfmtd.daemon.repairs.urgent_repairs import UrgentRepairs
from binfmtd.daemon.reporting.reporter import Reporter
from binfmtd.daemon.sd_notify import Notifier
from binfmtd.daemon.signals import Signals
from binfmtd.daemon.state_files.boot_persistence import BootPersistence
from binfmtd.daemon.state_files.pause_file import PauseFile
from binfmtd.daemon.state_files.state_dir import Lock
from binfmtd.daemon.state_files.state_writer import StateWriter, Written
from binfmtd.daemon.state_watch import StateWatch
from binfmtd.daemon.throttle import EventThrottle
from binfmtd.daemon.watchdog import Watchdog
from binfmtd.daemon.watches.inotify import InotifyWatcher
from binfmtd.daemon.watches.instance_watch import InstanceWatch
from binfmtd.daemon.watches.mount_watcher import MountWatcher
from binfmtd.kernel.mount import Where
from binfmtd.model.probe_result import Probed


class Parts:
    """All that lives as long as the daemon."""

    def __init__(
        self,
        source: ConfigSource,
        where: Where,
        reconciler: Reconciler,
        reporter: Reporter,
        signals: Signals,
        boot_persistence: BootPersistence,
        lock: Lock,
        pause_file: PauseFile,
        probe_runner: ProbeRunner,
        background: Background,
    ) -> None:
        """Connect the parts; ``where`` binfmt_misc is mounted, or is to be mounted."""
        self.signals = signals
        self.watch = InotifyWatcher()
        self.throttle = EventThrottle(reconciler.states.contended)
        self.reconciler = reconciler
        self.report = reporter
        self.probe_runner = probe_runner
        self.background = background
        self.notifier = Notifier()
        self.watchdog = Watchdog(self.notifier)
        self.mounts = MountWatcher()
        self.poller = Poller(self.mounts.descriptor, signals.descriptor, background.descriptor)
        self.interpreters = InterpreterFiles(
            background, self.watch, self._looked_at_interpreters, reporter.notices.unwatched
        )
        reconciler.facts.use(self.interpreters)
        self.instance_watch = InstanceWatch(where, self.watch, self.poller)
        self.sealing = Sealing(background, reporter)
        self.schedule = schedule = RepairSchedule(
            reconciler.states, reconciler.config.policy.settle, self.throttle, reporter
        )
        reader = EventReader(self.watch, reconciler.facts, self.throttle)
        touched = TouchedEntries()
        access = self.access = InstanceAccess(self.instance_watch, self.sealing, reader, reconciler.facts)
        urgent = UrgentRepairs(access, reader, touched, reconciler, schedule, self.instance_watch, reporter)
        self.instance_reconciler = InstanceReconciler(
            access, reader, touched, urgent, reconciler, schedule, self.instance_watch, reporter
        )
        self.exporter = Exporter(reporter, self.poller, background)
        files = (reconciler.ledger.file, reconciler.foreign_entries.file, reporter.status)
        self.state = StateWriter(background, lock, files, self._state_written, reporter.flush)
        publisher = Publisher(background, self.notifier, self.state, self.exporter, reporter.probe)
        self.readiness = readiness = Readiness(
            background, self.notifier, publisher, reporter, reconciler, self.instance_watch, schedule
        )
        seal = self.seal = SealKeeper(self.sealing, reconciler, self.instance_watch, touched, schedule)
        looks = self.looks = InterpreterLooks(self.interpreters, reconciler, access, schedule)
        passes = self.passes = Passes(
            reader,
            urgent,
            self.instance_reconciler,
            reconciler,
            schedule,
            self.throttle,
            self.instance_watch,
            seal,
            self.interpreters,
            looks,
            reporter,
            readiness,
            probe_runner,
            boot_persistence,
            background,
        )
        self.mount_search = MountSearch(
            background,
            self.mounts,
            self.watch,
            self.instance_watch,
            seal,
            self.instance_reconciler,
            reconciler,
            schedule,
            passes,
            self.interpreters,
            self.state,
            self.exporter,
            probe_runner,
            reporter,
            readiness,
        )
        self.reload = Reload(
            source,
            background,
            self.watch,
            self.notifier,
            reconciler,
            looks,
            self._looked_at_interpreters,
            self.state,
            seal,
            schedule,
            passes,
            probe_runner,
            boot_persistence,
            self.exporter,
            reporter,
            readiness,
        )
        self.pauses = PauseControl(pause_file, background, reconciler, urgent, seal, passes, reporter, readiness)
        self.state_watch = StateWatch(background, self.watch, lock, pause_file, self.pauses, probe_runner, reporter)
        self.identity_checks = IdentityChecks(urgent, self.throttle, looks, readiness)
        self.withheld = WithheldStandIns(urgent, schedule, readiness)
        self.interpreter_news = InterpreterNews(self.interpreters, looks, reconciler, schedule, passes, self.reload)
        probe_runner.on_result(self._probed)
        self.events = EventHandler(
            self.watch,
            reader,
            urgent,
            self.instance_reconciler,
            self.throttle,
            self.pauses,
            self.reload,
            looks,
            passes,
            self.mount_search,
            seal,
            probe_runner,
            reporter,
            readiness,
        )

    def _probed(self, probed: Probed | None) -> None:
        if self.reconciler.facts.use_probed(probed):
            self.interpreter_news.failed_over()

    def _looked_at_interpreters(self, news: bool) -> None:  # noqa: FBT001  a callback's only argument
        self.interpreter_news.looked(news=news)

    def _state_written(self, written: Written) -> None:
        self.state_watch.written(written)
        if self.report.status.is_behind(self.reconciler):  # the document was made before the files were written
            self.readiness.changed()
