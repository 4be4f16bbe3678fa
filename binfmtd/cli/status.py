"""``binfmtd status``: what the daemon says of itself."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from binfmtd.cli import options
from binfmtd.cli.output import print_json, warn
from binfmtd.cli.state import state_dir_to_read
from binfmtd.cli.status_view import NO_DAEMON, history_view, view
from binfmtd.cli.table import size_of
from binfmtd.daemon.state_dir import running_pid
from binfmtd.errors import StateError
from binfmtd.report.colour import takes_colours
from binfmtd.report.sentence import verdict
from binfmtd.report.status_json import FILE_NAME, read_status

FRESH = 0
STALE = 1
NOT_CONVERGED = 3


def parser() -> argparse.ArgumentParser:
    """What the command line may say."""
    command = options.parser("status")
    options.add_config(command)  # every command takes these two; here they make no difference
    options.add_mount(command)
    options.add_state_dir(command)
    options.add_json(command)
    how = command.add_mutually_exclusive_group()
    how.add_argument("--check", action="store_true", help="print one line, and exit with 3 unless all is converged")
    how.add_argument("--history", action="store_true", help="show the last hundred drifts and repairs instead")
    how.add_argument(
        "--watch",
        action="store_true",
        help="show it anew as it changes, until ^C; with --json one document a line",
    )
    return command


def main(arguments: Sequence[str]) -> int:
    """Exit status 0, or 1 if no daemon runs; with --check 3 unless it runs and has converged."""
    given = parser().parse_args(arguments)
    directory = state_dir_to_read(given)
    if given.watch:
        from binfmtd.cli.status_watch import watch

        watch(directory, as_json=given.json)
    pid = running_pid(directory)
    try:
        status = read_status(directory)
    except StateError as error:
        if not given.check:
            raise
        warn(str(error))
        return NOT_CONVERGED
    if given.json:
        print_json(status["history"] if given.history else {**status, "pid": pid})
    elif given.check:
        if pid is not None:
            print(_verdict(status))
    else:
        size = size_of(sys.stdout)
        width = None if size is None else size.columns
        if given.history:
            lines = history_view(status, width)
        else:
            lines = view(status, pid, width, coloured=takes_colours(sys.stdout))
        print("\n".join(lines))
    if pid is None:
        warn(NO_DAEMON)
    if given.check:
        return FRESH if pid is not None and status["state"] == "converged" else NOT_CONVERGED
    return FRESH if pid is not None else STALE


def _verdict(status: Mapping[str, Any]) -> str:
    try:
        return verdict(status)
    except (KeyError, TypeError, AttributeError):
        raise StateError(f"{FILE_NAME} is damaged: the daemon writes it anew with its next pass") from None
