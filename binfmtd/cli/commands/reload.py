"""``binfmtd reload``: make the daemon read its config again, and wait for the outcome.

The command sends SIGHUP to the daemon's process.  `docker kill -s HUP` would send it as well, but Docker counts that as
a manual stop, and then does not restart the container after a crash.
"""

import argparse
import os
import select
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from binfmtd.cli import options
from binfmtd.cli.output import warn
from binfmtd.cli.state import for_another_daemon, state_dir_to_read
from binfmtd.daemon.state_files.pause_file import since_boot
from binfmtd.daemon.state_files.state_dir import APPLY, holder, is_holder
from binfmtd.errors import StateError
from binfmtd.report.sentence import beside_problems
from binfmtd.report.status_json import read_status

IN_FORCE = 0
FAILED = 1
DEFAULT_TIMEOUT = "60s"
PATIENCE_SECONDS = 5.0  # for the lock of a daemon that is just starting, as after `docker run -d`
_INTERVAL_MS = 20
_NOT_REGISTERED = ("refused", "failed", "contended")  # not "waiting": nor does a start fail without an emulator


def parser() -> argparse.ArgumentParser:
    """Return the parser for ``binfmtd reload``."""
    command = options.parser("reload")
    command.add_argument(
        "--timeout",
        metavar="DURATION",
        type=options.with_unit,
        default=DEFAULT_TIMEOUT,
        help=f"give up after this time: seconds, or with units like 1m30s ({DEFAULT_TIMEOUT})",
    )
    options.add_config(command)  # every command accepts these two; this one ignores them
    options.add_mount(command)
    options.add_state_dir(command)
    return command


def main(arguments: Sequence[str]) -> int:
    """Return 0 if the config on disk is in force and its handlers are registered; else print why not and return 1."""
    given = parser().parse_args(arguments)
    deadline = time.monotonic() + options.duration(given.timeout, "--timeout", DEFAULT_TIMEOUT)
    directory = state_dir_to_read(given)
    daemon = _daemon(directory, min(deadline, time.monotonic() + PATIENCE_SECONDS))
    sent = since_boot()
    try:
        signal.pidfd_send_signal(daemon, signal.SIGHUP)
    except PermissionError:
        raise StateError(f"the daemon of {directory} runs as another user: run this as that user or as root") from None
    except ProcessLookupError:
        raise StateError(f"the daemon of {directory} has just ended") from None
    document = answer(directory, daemon, sent, deadline)
    if document is None:
        warn(f"the daemon has not answered within {given.timeout}: `binfmtd status` shows its state")
        return FAILED
    if rejected := document["config"]["error"]:
        warn(f"the config was rejected, and the previous one stays in force: {rejected}")
        return FAILED
    brief = beside_problems(document)
    print(f"the config is in force: {brief}" if brief else "the config is in force")
    failures = _failures(document)
    for failure in failures:
        warn(failure)
    return FAILED if failures else IN_FORCE


def _daemon(directory: str, deadline: float) -> int:
    """Return a descriptor of the daemon's process (pidfd_open(2)).

    Wait for a daemon that is just starting until the deadline (monotonic, in seconds): for its lock, and then for the
    id that it writes into the lock file.  Raises StateError.
    """
    while (lock_holder := holder(directory)) is None or not lock_holder[0]:
        if time.monotonic() >= deadline:
            break
        time.sleep(_INTERVAL_MS / 1000)
    if lock_holder is None:
        raise StateError(f"no daemon runs with the state directory {directory}: {for_another_daemon()}")
    pid, purpose = lock_holder
    if purpose == APPLY:
        raise StateError(
            f"no daemon runs with the state directory {directory}; `binfmtd apply` (pid {pid}) uses it at the moment: "
            "try again"
        )
    try:
        process = os.pidfd_open(pid)
    except (OSError, ValueError):
        process = None
    # Checked with the descriptor open: from then on the id cannot become another process's.
    if process is None or not is_holder(pid, directory):
        raise StateError(
            f"the daemon of {directory} runs in another container or pid namespace (pid {pid or 'unknown'} there), and "
            "can be signalled only from there: run `docker exec CONTAINER binfmtd reload`, where CONTAINER is the "
            "daemon's"
        )
    return process


def answer(directory: str, daemon: int, sent: float, deadline: float) -> dict[str, Any] | None:
    """Wait for the status after the reload; return None at the deadline.  Raises StateError if the daemon ends.

    A reload that began to read before the signal was sent may have read an older config, so it is not the answer.
    ``sent`` is in seconds since the boot, ``deadline`` monotonic in seconds.
    """
    ended = select.poll()
    ended.register(daemon, select.POLLIN)
    while True:
        if ended.poll(_INTERVAL_MS):
            raise StateError(f"the daemon of {directory} ended before it answered")
        late = time.monotonic() >= deadline
        document = None
        with suppress(StateError):  # a daemon that is just starting has none yet
            document = read_status(directory)
        if document is not None:
            config = document["config"]
            if "reload_began" not in config:
                raise StateError("the daemon runs another version of binfmtd: restart it")
            answered = (config["reload_began"] or 0.0) > sent
            if answered and (config["error"] or document["state"] != "drifting" or late):
                return document
        if late:
            return None


def _failures(document: Mapping[str, Any]) -> list[str]:
    rows = [row for row in document["handlers"] if row["state"] in _NOT_REGISTERED]
    problems = [document["problem"]] if document["problem"] else []
    return problems + [f"{row['name']} is {row['state']}: {row['reason']}" for row in rows]
