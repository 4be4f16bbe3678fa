"""The world around a simulated daemon: the kernel, files and signals, and methods that act as other programs.

Each act changes the kernel or a file, and queues the events that inotify would report.  ``trace`` has what happened, in
order: acts of other programs and, added by the daemon's side, writes to the kernel and lines of the log.
"""

from collections.abc import Callable, Collection
from typing import NamedTuple

from binfmtd.daemon.watches.events import PendingEvents, WatchKind
from binfmtd.errors import ConfigError
from binfmtd.kernel.mount import Mounted
from binfmtd.model.config import Config
from binfmtd.model.desired import FileIdentity
from binfmtd.model.handler import Registration
from binfmtd.model.pause import Pauses
from binfmtd.model.plan import INSTANCE
from binfmtd.model.stand_in import stand_in_name
from support.simulated import SimulatedKernel
from support.simulated_time import START, SimulatedTime
from support.simulated_wait import SimulatedMounts, SimulatedSignals, SimulatedWatch

_DIRECTORY = "/binfmt_misc"


class Happened(NamedTuple):
    """One line of the trace; ``at`` is in seconds after the start."""

    at: float
    who: str  # kernel: a write of the daemon's; log; status; systemd: what the daemon sent to it; other: other programs
    what: str
    names: str = ""

    def __str__(self) -> str:
        return f"{self.at:10.4f}  {self.who:8}{self.what} {self.names}".rstrip()


class SimulatedWorld:
    """The state of the host, and methods that act as other programs and as the administrator."""

    def __init__(self, config: Config, *, reports_removals: bool, missing: Collection[str]) -> None:
        """``reports_removals``: a flush raises an event for each entry, as since Linux 6.18.

        ``missing``: interpreters that do not exist at the start.
        """
        self.clock = SimulatedTime()
        self.trace: list[Happened] = []
        self.has_state_dir = True
        self.refuses: set[str] = set()  # names that the kernel refuses to register
        self.config: Config | ConfigError = config  # the content of the config's files
        self._unwatched_edit_at = float("-inf")  # seconds since the boot
        self.paused = Pauses()  # the content of paused.json
        self.kernel = SimulatedKernel()
        self.device = 1
        self.mounted: Mounted | None = Mounted(_DIRECTORY, self.device, read_only=False)
        self.watch = SimulatedWatch(self.clock, lambda: self.mounted and self.mounted.device)
        self.mounts = SimulatedMounts()
        self.signals = SimulatedSignals()
        self._reports_removals = reports_removals
        self._missing = set(missing)
        self._versions: dict[str, int] = {}  # interpreter -> how often its file was exchanged

    def at(self, seconds: float, act: Callable[..., object], *arguments: object) -> None:
        """Have another program act ``seconds`` after the start."""

        def do() -> None:
            self.add("other", act.__name__, " ".join(each for each in arguments if isinstance(each, str)))
            act(*arguments)

        self.clock.at(START + seconds, do)

    def add(self, who: str, what: str, names: str = "") -> None:
        """Add a line to the trace."""
        self.trace.append(Happened(self.clock.now - START, who, what, names))

    def happened(self, who: str, names: str | None = None) -> list[str]:
        """Return what the trace has of this kind, in order; ``names``: only about these entries."""
        return [each.what for each in self.trace if each.who == who and names in (None, each.names)]

    def when(self, who: str, what: str, names: str | None = None) -> list[float]:
        """Return when this happened, in seconds after the start."""
        return [each.at for each in self.trace if (each.who, each.what) == (who, what) and names in (None, each.names)]

    def names(self) -> list[str]:
        """Return the names of the entries, newest first."""
        return [entry.name for entry in self.kernel.entries]

    def identity(self, path: str) -> FileIdentity | None:
        """Return the identity of an interpreter's file; None if it does not exist."""
        return None if path in self._missing else FileIdentity(1, 2, 3, self._versions.get(path, 0), 5)

    # Other programs

    def removes(self, name: str) -> None:
        """Remove an entry by name, if it exists."""
        if name in self.names():
            self.kernel.remove(name)
            self.touches(name)

    def removes_one_of_all(self, number: int) -> None:
        """Remove any entry by name, perhaps a stand-in or a foreign one."""
        if self.names():
            self.removes(self.names()[number % len(self.names())])

    def disables(self, name: str) -> None:
        if name in self.names():
            self.kernel.switch(name, enabled=False)
            self.touches(name)

    def registers(self, name: str, registration: Registration) -> None:
        """Register an entry, unless its name is taken."""
        if name not in self.names():
            self.kernel.register(name, registration)
        self._raises(PendingEvents(any_entry=True))

    def replaces(self, name: str, registration: Registration) -> None:
        self.removes(name)
        self.registers(name, registration)

    def touches(self, name: str) -> None:
        """Write to an entry without changing it."""
        events = PendingEvents([name])
        events.entries_written.add(name)
        self._raises(events)

    def flushes(self) -> None:
        """Remove all entries at once."""
        names = self.names() if self._reports_removals else []
        self.kernel.entries.clear()
        self._raises(PendingEvents(names, any_entry=True, flushed=True))

    def switches_off(self) -> None:
        self.kernel.switch(INSTANCE, enabled=False)
        self._raises(PendingEvents(any_entry=True, flushed=True))

    def writes_endlessly(self, name: str, cpu: float) -> None:
        """Write so often to an entry, in vain, that reading the events takes ``cpu`` seconds of CPU time."""
        self.touches(name)
        self.watch.cost += cpu

    def overflows(self) -> None:
        """Raise more events than the kernel's queue holds."""
        events = PendingEvents(any_entry=True)
        events.overflow = True
        events.changed_files |= self.watch.owners
        self._raises(events)

    def mounts_another(self) -> None:
        """Unmount the instance, unless that has been done, and mount another."""
        if self.mounted is not None:
            self.unmounts()
        self.covers()

    def covers(self) -> None:
        """Mount another instance over the old one."""
        self.kernel = SimulatedKernel()
        self.device += 1
        self.mounted = Mounted(_DIRECTORY, self.device, read_only=False)
        self.mounts.changed = True

    def unmounts(self) -> None:
        events = PendingEvents(any_entry=True)
        events.watch_removed = True
        self._raises(events)
        self.mounted = None
        self.mounts.changed = True

    def refuses_to_register(self, name: str) -> None:
        """Have the kernel refuse an entry and its stand-in from now on."""
        self.refuses |= {name, stand_in_name(name)}

    def accepts(self, name: str) -> None:
        self.refuses -= {name, stand_in_name(name)}

    def mounts_elsewhere(self) -> None:
        """Mount a file system that has nothing to do with binfmt_misc."""
        self.mounts.changed = True

    def removes_state_dir(self) -> None:
        self.has_state_dir = False

    def removes_module(self) -> None:
        """Have the daemon fail to import a module in this turn, since an upgrade has replaced its files."""
        raise ImportError("No module named 'binfmtd.gone'")

    # The administrator

    def edits(self, config: Config | ConfigError) -> None:
        """Write another config; the daemon may watch its files."""
        self.config = config
        self._changes(WatchKind.CONFIG)

    def edits_unwatched(self, config: Config | ConfigError) -> None:
        """Write another config, for which no event is raised."""
        self.config = config
        self._unwatched_edit_at = self.clock.since_boot()

    def config_age(self) -> float:
        """Return the seconds since the last edit without an event; the daemon waits for no other one to end."""
        return self.clock.since_boot() - self._unwatched_edit_at

    def reloads(self, config: Config | ConfigError) -> None:
        """Write another config, and send SIGHUP."""
        self.edits(config)
        self.signals.raise_reload()

    def pauses(self, names: list[str], seconds: float) -> None:
        """Pause these entries, or all of them if ``names`` is empty."""
        self.paused = self.paused.with_(names, self.clock.since_boot() + seconds)
        self._changes(WatchKind.PAUSES)

    def resumes(self, names: list[str]) -> None:
        self.paused = self.paused.without(names)
        self._changes(WatchKind.PAUSES)

    def installs(self, path: str) -> None:
        """Put another file in the place of an interpreter."""
        self._missing.discard(path)
        self._versions[path] = self._versions.get(path, 0) + 1
        self._changes(path, arrived=True)

    def uninstalls(self, path: str) -> None:
        self._missing.add(path)
        self._changes(path)

    def _raises(self, events: PendingEvents) -> None:
        if self.mounted is not None and self.watch.instance == self.mounted.device:
            self.watch.queue.append(events)

    def _changes(self, owner: str, *, arrived: bool = False) -> None:
        if owner in self.watch.owners:
            events = PendingEvents()
            events.changed_files.add(owner)
            events.interpreter_installed = arrived
            self.watch.queue.append(events)
