"""``binfmtd run``: put the daemon together from its parts, and run it."""

import argparse
import os
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from binfmtd.cli import options
from binfmtd.cli.context import observe, reconciler
from binfmtd.cli.state import state_dir
from binfmtd.config.load import Contents, make, read
from binfmtd.daemon.state_files.boot_persistence import BootPersistence, find_host, outlasting
from binfmtd.daemon.state_files.pause_file import PauseFile, since_boot
from binfmtd.daemon.state_files.state_dir import Lock, make_state_dir
from binfmtd.errors import ConfigError
from binfmtd.files.atomic import remove_unfinished
from binfmtd.files.trust import Trust
from binfmtd.host.facts import boot_id
from binfmtd.model.config import Config, Metrics
from binfmtd.report.status_json import set_aside, take_history

_LAST_LINES = 0.5  # seconds that the daemon, at its end, waits for the reader of its log


def parser() -> argparse.ArgumentParser:
    """Return the parser for ``binfmtd run``."""
    command = options.parser("run")
    options.add_config(command)
    options.add_arch(command)
    options.add_persistent(command)
    options.add_reach(command)
    options.add_mount(command)
    command.add_argument(
        "--last-valid",
        action="store_true",
        default=options.switch("BINFMTD_LAST_VALID"),
        help="if the config is invalid at the start, use the last valid one, which the daemon keeps in the state "
        "directory ($BINFMTD_LAST_VALID)",
    )
    command.add_argument(
        "--real-time",
        action="store_true",
        default=options.switch("BINFMTD_REAL_TIME"),
        help="repair with real-time priority (SCHED_FIFO), where RLIMIT_RTPRIO or CAP_SYS_NICE allow it "
        "($BINFMTD_REAL_TIME)",
    )
    options.add_state_dir(command)
    options.add_log(command)
    return command


class _Files:
    """The config's files, and with ``--last-valid`` a copy of the last valid ones."""

    def __init__(self, given: argparse.Namespace, wanted: Sequence[str] | None) -> None:
        """``wanted`` architectures, if they are not None, take the place of the files' own."""
        self.state_dir = state_dir(given)
        self._given = given
        self._wanted = wanted
        self._private = options.switch("BINFMTD_PRIVATE")
        self._trust = Trust.of_this_process()
        self._contents: Contents = ()
        self.began = since_boot()  # before the config is first read

    def load(self) -> Config:
        """Load the config from the files as they are now.  Raises ConfigError."""
        self._contents = read(self._given.config, trust=self._trust)
        return self._make(self._contents)

    def load_at_start(self) -> tuple[Config, str | None]:
        """Load the config; if it is invalid, and with ``--last-valid``, load the last valid one instead.

        Return the config, and what is wrong with the files or None.  Raises ConfigError.
        """
        try:
            return self.load(), None
        except ConfigError as error:
            if not self._given.last_valid:
                raise
            from binfmtd.config.last_valid import read_last_valid

            try:
                return self._make(read_last_valid(self.state_dir, self._trust)), str(error)
            except ConfigError as no_other:
                raise ConfigError(f"{error} (and no last valid config can be used: {no_other})") from None

    def kept(self, config: Config) -> Config:
        """With ``--last-valid``, store the files that were loaded last as the last valid ones.

        Return the config, with a warning if that failed.
        """
        if not self._given.last_valid:
            return config
        from binfmtd.config.last_valid import keep_last_valid

        problem = keep_last_valid(self.state_dir, self._contents)
        return config if problem is None else config._replace(warnings=(*config.warnings, problem))

    def _make(self, contents: Contents) -> Config:
        config = make(contents, trust=self._trust, architectures=self._wanted)
        if self._private:  # the config may be the host's, and so are the files and the port that it names
            config = config._replace(metrics=Metrics(), labels=None)
        return outlasting(config) if self._given.persistent else config


def _take(directory: str) -> tuple[Lock, list[Any]]:
    """Take the lock of the state directory; return it, and the history of the previous daemon."""
    make_state_dir(directory)
    lock = Lock(directory, before=partial(set_aside, directory))
    history = take_history(directory)
    remove_unfinished(directory)
    return lock, history


def _prepare_threads() -> None:
    """Give all threads short slices and one heap, before the first one starts.

    Where short slices are forbidden, the daemon waits longer for a core of a busy machine.
    """
    from binfmtd.host.allocator import share_heap
    from binfmtd.host.scheduling import use_short_slices

    share_heap()
    with suppress(OSError):
        use_short_slices()


def main(arguments: Sequence[str]) -> int:
    """Run until SIGTERM or SIGINT, then return 0; SIGHUP loads the config again."""
    given = parser().parse_args(arguments)

    from binfmtd.daemon.signals import Signals

    signals = Signals()  # first of all: it unblocks the signals that were sent meanwhile, and handles them
    _prepare_threads()
    wanted = options.architectures(given)
    boot_persistence = BootPersistence(find_host(given.host_root) if given.persistent else None)
    boot_persistence.check_reader()

    files = _Files(given, wanted)
    config, rejected = files.load_at_start()
    directory = files.state_dir
    lock, history = _take(directory)

    from binfmtd.config.file_versions import DEFAULT_PATH
    from binfmtd.config.source import age, watched
    from binfmtd.daemon.background import Background
    from binfmtd.daemon.config_source import ConfigSource
    from binfmtd.daemon.interpreters.host_facts import needs_native
    from binfmtd.daemon.interpreters.probe_runner import ProbeRunner
    from binfmtd.daemon.loop import Loop
    from binfmtd.daemon.parts import Parts
    from binfmtd.daemon.reporting.recent_events import RecentEvents
    from binfmtd.daemon.reporting.reporter import Reporter
    from binfmtd.daemon.state_files.probed_file import ProbedFile
    from binfmtd.files.distribution import emulators_remedy
    from binfmtd.report import log

    kept = reconciler(config, directory)
    kept.ledger.file.deferred = kept.foreign_entries.file.deferred = True
    if needs_native(config):
        kept.facts.native(observe(given.mount))  # found by child processes, so before the first thread starts
    emulators_remedy()  # what it reads of this system is cached, so that the loop reads no file for it
    lines = log.set_up_queue(given.log_level, given.log_format)
    reporter = Reporter(
        kept.states, directory, os.path.abspath(given.config or DEFAULT_PATH), lines, RecentEvents(history)
    )
    reporter.config_loaded(files.kept(config) if rejected is None else config)
    if rejected is not None:
        reporter.last_valid_in_force(rejected)
    source = ConfigSource(
        load=lambda: files.kept(files.load()),
        age=lambda: age(given.config),
        watched=lambda: watched(given.config),
        began=files.began,
    )
    for problem in filter(None, (kept.ledger.problem, kept.foreign_entries.problem)):
        reporter.notices.ledger_lost(problem)
    boot = boot_id()
    pauses = PauseFile(directory, boot)
    background = Background()
    probe_runner = ProbeRunner(
        ProbedFile(directory, boot), directory, given.mount, config.policy.probe, reporter.probe, background
    )
    try:
        parts = Parts(
            source,
            options.where(given),
            kept,
            reporter,
            signals,
            boot_persistence,
            lock,
            pauses,
            probe_runner,
            background,
        )
        Loop(parts).run(real_time=given.real_time)
    finally:
        signals.ignore()
        lines.flush(_LAST_LINES)
        lock.release()
    return 0
