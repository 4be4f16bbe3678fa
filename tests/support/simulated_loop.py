"""The daemon's real loop on a simulated kernel, a simulated clock and a simulated wait.

Loop, UrgentRepairs, the reconcilers, RepairSchedule, FastRepair, PlanExecutor, InterpreterFiles, timers and reporter
are the real ones.  Simulated are the kernel, inotify, the wait, threads, signals, the mount table, interpreters and the
files of the state directory.  ``at`` puts what other programs do into the agenda.

Example: ``loop.at(1.0, loop.removes, "a")`` and ``loop.run(3.0)`` have another program remove an entry one second after
the start, and SIGTERM come two seconds later.  Then ``trace`` has everything that happened, in order.
"""

import gc
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import combinations
from typing import Any, cast
from unittest import mock

from binfmtd.daemon import parts as all_parts
from binfmtd.daemon import readiness
from binfmtd.daemon.config_source import ConfigSource
from binfmtd.daemon.entries.reconciler import Reconciler
from binfmtd.daemon.interpreters import interpreter_files, probe_report
from binfmtd.daemon.interpreters.host_facts import HostFacts
from binfmtd.daemon.interpreters.probe_runner import ProbeRunner
from binfmtd.daemon.loop import Loop
from binfmtd.daemon.repairs import instance_access
from binfmtd.daemon.reporting import causes, event_log, status_file
from binfmtd.daemon.reporting.reporter import Reporter
from binfmtd.daemon.sd_notify import Notifier
from binfmtd.daemon.signals import Signals
from binfmtd.daemon.state_files.boot_persistence import BootPersistence
from binfmtd.daemon.state_files.foreign_entries import ForeignEntryStore
from binfmtd.daemon.state_files.ledger import Ledger
from binfmtd.daemon.state_files.probed_file import ProbedFile
from binfmtd.daemon.state_files.state_dir import Lock
from binfmtd.daemon.watches import instance_watch
from binfmtd.errors import ConfigError, MountError
from binfmtd.formats.register_line import decode_line
from binfmtd.kernel.mount import Mounted, Where
from binfmtd.kernel.writer import DISABLE, ENABLE
from binfmtd.model.config import Config, Probe
from binfmtd.model.desired import InterpreterFacts
from binfmtd.model.handler import Registration
from binfmtd.model.precedence import overlaps
from binfmtd.model.stand_in import stand_in_name
from support.simulated import Through
from support.simulated_parts import AtOnce, RecordingLogger, SimulatedFacts, SimulatedPauseFile, Unreachable
from support.simulated_time import START
from support.simulated_wait import INOTIFY, MOUNTS, SIGNALS, SimulatedBackground, SimulatedPoller
from support.simulated_world import SimulatedWorld

_WRITE_SECONDS = 1e-4  # of CPU time, too
_COMMANDS = {ENABLE: "enable", DISABLE: "disable"}
_STATES = ("READY=1", "RELOADING=1", "STOPPING=1")


class _Opened(Through):
    """The kernel as the daemon opens it: instance and writer."""

    def __init__(self, loop: "SimulatedLoop") -> None:
        super().__init__(loop.kernel, loop.refuses, loop.device)
        self._loop = loop

    def register(self, lines: Iterable[bytes], _: object = None) -> list[OSError | None]:
        """Register the lines in their order, but in that of their names where no order is any better.

        The daemon writes stand-ins that share no file in the order of a set, which differs between two processes.
        """
        batch = [(line, *decode_line(line)) for line in lines]
        places = list(range(len(batch)))
        if self._loop.in_any_order({name: registration for _, name, registration in batch}):
            places.sort(key=lambda place: batch[place][1])
        outcome: list[OSError | None] = [None] * len(batch)
        for place in places:
            line, name, _ = batch[place]
            (outcome[place],) = errors = super().register([line])
            self._loop.wrote("register" if errors[0] is None else f"register, error {errors[0].errno}", name)
        return outcome

    def control(self, name: str, command: bytes) -> bool:
        found = super().control(name, command)
        act = _COMMANDS.get(command, "remove")
        self._loop.wrote(act if found else f"{act}, not found", name)
        return found


class SimulatedLoop(SimulatedWorld):
    """One daemon from its start to SIGTERM, in a world of its own."""

    def __init__(
        self,
        config: Config,
        *,
        delay: float = 0.0,
        write_seconds: float = _WRITE_SECONDS,
        reports_removals: bool = True,
        missing: Collection[str] = (),
    ) -> None:
        """``delay``: seconds that each piece of work in a thread takes; ``write_seconds``: what a write takes."""
        super().__init__(config, reports_removals=reports_removals, missing=missing)
        self.document: dict[str, Any] = {}  # the content of the status file
        self.poller: SimulatedPoller
        self._write_seconds = write_seconds
        with self._in_force():
            self._background = SimulatedBackground(self.clock, delay)
            self._loop = self._make(config)

    def run(self, seconds: float) -> None:
        """Run the daemon, and send SIGTERM ``seconds`` after the start."""
        self.clock.at(START + seconds, self._end)
        try:
            with self._in_force():
                self._loop.run()
        finally:
            os.close(self._background.descriptor)

    def wrote(self, act: str, name: str) -> None:
        """Add a write of the daemon's to the trace; meanwhile other programs go on."""
        self.add("kernel", act, name)
        self.clock.spend(self._write_seconds, _WRITE_SECONDS)

    def in_any_order(self, batch: Mapping[str, Registration]) -> bool:
        """Return True if these are stand-ins, and it does not matter in which order they are registered."""
        specs = self.config.specs if isinstance(self.config, Config) else ()
        priorities = {stand_in_name(each.name): each.priority for each in specs}
        if not batch.keys() <= priorities.keys() or len({priorities[name] for name in batch}) != 1:
            return False
        return not any(overlaps(one.match, other.match) for one, other in combinations(batch.values(), 2))

    def _make(self, config: Config) -> Loop:
        facts = cast(HostFacts, SimulatedFacts())
        reconciler = Reconciler(config, facts, Ledger(None, "boot"), ForeignEntryStore(None, "boot"))
        reporter = Reporter(reconciler.states, "/state", "/config")
        lock = mock.create_autospec(Lock, instance=True, watched={})
        lock.keep.side_effect = self._keep_state_dir
        parts = all_parts.Parts(
            ConfigSource(
                self._load, self.config_age, lambda: {"/etc": {"binfmtd.toml"}}, began=self.clock.since_boot()
            ),
            Where(),
            reconciler,
            reporter,
            cast(Signals, self.signals),
            BootPersistence(),
            lock,
            SimulatedPauseFile(self),
            ProbeRunner(ProbedFile(None, "boot"), "/state", None, Probe.OFF, reporter.probe, self._background),
            self._background,
        )
        return Loop(parts)

    def _end(self) -> None:
        """Send SIGTERM; add the status and the entries of this moment to the trace."""
        for row in self.document["handlers"]:
            self.add("status", row["state"], row["name"])
        self.add("status", self.document["state"])
        self.add("entries", "newest first", " ".join(self.names()))
        self.signals.raise_stop()

    def _keep_state_dir(self) -> bool:
        made_again, self.has_state_dir = not self.has_state_dir, True
        return made_again

    def _load(self) -> Config:
        if isinstance(self.config, ConfigError):
            raise self.config
        return self.config

    def _find(self, _: Where) -> Mounted:
        if self.mounted is None:
            raise MountError("binfmt_misc is not mounted")
        return self.mounted

    def _open(self, mounted: Mounted) -> _Opened:
        if self.mounted is None or self.mounted.device != mounted.device:
            raise MountError("another instance is mounted there")
        return _Opened(self)

    def _writer(self, instance: _Opened | Mounted, *_: object, **__: object) -> _Opened | Unreachable:
        if isinstance(instance, _Opened):
            return instance
        try:
            return self._open(instance)
        except MountError:
            return Unreachable()

    def _look_at(self, paths: Iterable[str], *_: object) -> dict[str, InterpreterFacts]:
        return {path: InterpreterFacts(self.identity(path)) for path in paths}

    def _poll(self, *descriptors: int) -> SimulatedPoller:
        ready = {
            MOUNTS: self.mounts.poll,
            SIGNALS: lambda: self.signals.pending,
            INOTIFY: self.watch.pending,
            self._background.descriptor: self._background.ready,
        }
        self.poller = SimulatedPoller(self.clock, ready, descriptors)
        return self.poller

    def _sent(self, *states: str) -> None:
        for state in states:
            if state in _STATES:
                self.add("systemd", state)

    def _write_status(self, _: str, document: dict[str, Any]) -> None:
        self.document = document

    @contextmanager
    def _in_force(self) -> Iterator[None]:
        """Have the daemon's modules use what is simulated."""
        replaced: list[tuple[Any, Mapping[str, object]]] = [
            (instance_access, {"Instance": self._open, "Writer": self._writer}),
            (
                all_parts,
                {"InotifyWatcher": lambda: self.watch, "MountWatcher": lambda: self.mounts, "Poller": self._poll},
            ),
            (readiness, {"preload": lambda _: True}),
            (instance_watch, {"find_or_mount": self._find}),
            (interpreter_files, {"BoundedCalls": AtOnce, "file_identity": self.identity, "read_head": lambda _: b""}),
            (interpreter_files, {"look_at": self._look_at, "watched": lambda paths: {path: {path} for path in paths}}),
            (interpreter_files, {"remote_devices": frozenset}),
            (status_file, {"write_status": self._write_status, "status_written": lambda _: True}),
            (event_log, {"get_logger": lambda: RecordingLogger(self)}),
            (probe_report, {"get_logger": lambda: RecordingLogger(self)}),
            (causes, {"unit_started": lambda _: None}),
            (Notifier, {"send": lambda _, *states: self._sent(*states)}),
            (gc, {"freeze": lambda: None}),
            (sys, {"setswitchinterval": lambda _: None}),
        ]
        with ExitStack() as patches, self.clock.in_force():
            for where, names in replaced:
                for name, new in names.items():
                    patches.enter_context(mock.patch.object(where, name, new))
            yield
