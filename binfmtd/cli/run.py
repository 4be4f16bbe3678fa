"""``binfmtd run``: the daemon."""

import argparse
import os
from collections.abc import Sequence

from binfmtd.cli import options
from binfmtd.cli.check import observe
from binfmtd.cli.context import load_config, reconciler
from binfmtd.cli.state import state_dir
from binfmtd.daemon.pause_file import PauseFile
from binfmtd.daemon.persistent import Persistence, find_host, outlasting
from binfmtd.daemon.state_dir import Lock, make_state_dir
from binfmtd.files.atomic import remove_unfinished
from binfmtd.kernel.host import boot_id
from binfmtd.model.config import Config
from binfmtd.report.status_json import forget_status, take_history

_LAST_LINES = 0.5  # seconds that the end waits for the reader of the log


def parser() -> argparse.ArgumentParser:
    """What the command line may say."""
    command = options.parser("run")
    options.add_config(command)
    options.add_arch(command)
    options.add_persistent(command)
    options.add_reach(command)
    options.add_mount(command)
    options.add_state_dir(command)
    options.add_log(command)
    return command


def main(arguments: Sequence[str]) -> int:
    """Run until SIGTERM or SIGINT; SIGHUP loads the config anew."""
    given = parser().parse_args(arguments)

    from binfmtd.daemon.signals import Signals

    signals = Signals()  # first of all: what was sent meanwhile is answered
    wanted = options.architectures(given)
    persistence = Persistence(find_host(given.host_root) if given.persistent else None)
    persistence.check_reader()

    def load() -> Config:
        config = load_config(given, wanted)
        return outlasting(config) if given.persistent else config

    config = load()
    directory = state_dir(given)
    make_state_dir(directory)
    lock = Lock(directory)
    history = take_history(directory)
    forget_status(directory)
    remove_unfinished(directory)

    from binfmtd.config.look import DEFAULT_PATH
    from binfmtd.config.source import age, watched
    from binfmtd.daemon.background import Background
    from binfmtd.daemon.config_source import ConfigSource
    from binfmtd.daemon.facts import needs_native
    from binfmtd.daemon.history import History
    from binfmtd.daemon.probed_file import ProbedFile
    from binfmtd.daemon.probing import Probing
    from binfmtd.daemon.reporter import Reporter
    from binfmtd.daemon.service import Service
    from binfmtd.files.distribution import emulators_remedy
    from binfmtd.report import log

    kept = reconciler(config, directory)
    kept.ledger.file.deferred = kept.memory.file.deferred = True
    if needs_native(config):
        kept.facts.native(observe(given.mount))  # by child processes, started before the first thread
    emulators_remedy()  # what it reads of this system it keeps, so that the loop reads no file for it
    lines = log.set_up_queue(given.log_level, given.log_format)
    reporter = Reporter(directory, os.path.abspath(given.config or DEFAULT_PATH), lines, History(history))
    reporter.config_loaded(config)
    source = ConfigSource(
        load=load,
        age=lambda: age(given.config),
        watched=lambda: watched(given.config),
    )
    if kept.ledger.problem:
        reporter.ledger_lost(kept.ledger.problem)
    boot = boot_id()
    pauses = PauseFile(directory, boot)
    background = Background()
    probing = Probing(
        ProbedFile(directory, boot), directory, given.mount, config.policy.probe, reporter.probe, background
    )
    try:
        Service(
            source, options.where(given), kept, reporter, signals, persistence, lock, pauses, probing, background
        ).run()
    finally:
        signals.ignore()
        lines.flush(_LAST_LINES)
        lock.release()
    return 0
