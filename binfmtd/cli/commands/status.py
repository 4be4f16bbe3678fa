"""``binfmtd status``: show the status that the daemon writes to its state directory."""

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from binfmtd.cli import options
from binfmtd.cli.output import print_json, warn
from binfmtd.cli.state import state_dir_to_read
from binfmtd.cli.status_view import NO_DAEMON, Page, history_view, named_view, narrowed, problems_view, view
from binfmtd.cli.table import width_of
from binfmtd.daemon.state_files.state_dir import running_pid
from binfmtd.errors import StateError, UsageError
from binfmtd.report.colour import takes_colours
from binfmtd.report.sentence import verdict
from binfmtd.report.status import healthy
from binfmtd.report.status_json import read_status, status_written

FRESH = 0
STALE = 1
NOT_CONVERGED = 3


def parser() -> argparse.ArgumentParser:
    """Return the parser for ``binfmtd status``."""
    command = options.parser("status")
    options.add_config(command)  # every command accepts these two; this one ignores them
    options.add_mount(command)
    options.add_state_dir(command)
    options.add_json(command)
    how = command.add_mutually_exclusive_group()
    how.add_argument(
        "--check", action="store_true", help="print one line, and exit with 3 unless each handler is served"
    )
    how.add_argument("--history", action="store_true", help="show the last hundred drifts and repairs instead")
    how.add_argument("--problems", action="store_true", help="show only what is not in order")
    how.add_argument("--all", action="store_true", help="show a row for each handler, also for those in order")
    how.add_argument(
        "--watch",
        action="store_true",
        help="show the status again each time it changes, until ^C; with --json, one document per line",
    )
    command.add_argument(
        "names", metavar="NAME", nargs="*", help="show only these: an entry, or an architecture (any alias)"
    )
    return command


def main(arguments: Sequence[str]) -> int:
    """Return 0, or 1 if no daemon runs; with --check 3 unless it runs and each handler is served."""
    given = parser().parse_args(arguments)
    directory = state_dir_to_read(given)
    if given.names and (given.watch or given.check or given.problems or given.all):
        raise UsageError(
            "a NAME can be combined with --history and --json, but not with --check, --problems, --all or --watch"
        )
    if given.watch:
        from binfmtd.cli.status_watch import watch

        watch(directory, as_json=given.json)
    pid = running_pid(directory)
    try:
        status = _read(directory, pid)
    except StateError as error:
        if not given.check:
            raise
        warn(str(error))
        return NOT_CONVERGED
    if status["seal"]["state"] == "unsealed":
        status = {**status, "seal": {**status["seal"], "reason": _writers(status)}}
    if given.names:
        from binfmtd.cli.entry_names import entries

        status = narrowed(status, entries(given.names, directory))
    if given.json:
        print_json(status["history"] if given.history else {**status, "pid": pid})
    elif given.check:
        if pid is not None:
            print(verdict(status))
    else:
        print("\n".join(_lines(given, status, pid)))
    if pid is None:
        warn(NO_DAEMON)
    if given.check:
        return FRESH if pid is not None and healthy(status) else NOT_CONVERGED
    return FRESH if pid is not None else STALE


def _read(directory: str, pid: int | None) -> dict[str, Any]:
    """Return the status.  Raises StateError; if the daemon ``pid`` runs, that is why it has none."""
    if pid is None or status_written(directory):
        return read_status(directory)
    raise StateError(
        f"the daemon (pid {pid or 'unknown'}) has no status in {directory}: it is just starting, or cannot write there "
        "(a full file system?); its log has the reason"
    )


def _writers(status: Mapping[str, Any]) -> str:
    """Return why the instance is not sealed: the processes that have a file of it open for writing.

    Where the daemon, with fewer capabilities, named none, look again from here.
    """
    from binfmtd.kernel.mount import device_at
    from binfmtd.kernel.seal import UNSEEN, writers
    from binfmtd.report.seal import BUSY

    reason: str = status["seal"]["reason"]
    directory = status["mount"]["directory"] if status["mount"] else ""
    device = device_at(directory)
    if reason not in (UNSEEN, BUSY.reason) or device is None:
        return reason
    with suppress(OSError):
        return writers(device, os.listdir(directory))
    return reason


def _versions(status: Mapping[str, Any]) -> dict[str, str]:
    """Return the version of QEMU and the settings for each interpreter whose file contains one of them."""
    from binfmtd.host.emulator_settings import described

    found = {path: described(path) for path in {row["interpreter"] for row in status["handlers"]}}
    return {path: text for path, text in found.items() if text}


def _emulators(status: Mapping[str, Any]) -> dict[str, str]:
    """Return the interpreter of each foreign entry, with its version of QEMU and its settings, if they are known."""
    from binfmtd.cli.context import observe
    from binfmtd.host.emulator_settings import described

    names = {row["name"] for row in status["foreign"]}
    observed = observe(status["mount"]["directory"]) if names and status["mount"] else None
    found = {}
    for entry in () if observed is None else observed.entries:
        if entry.name in names and entry.registration is not None:
            path = entry.registration.interpreter
            version = described(path)
            found[entry.name] = path + (f" (QEMU {version})" if version else "")
    return found


def _lines(given: argparse.Namespace, status: Mapping[str, Any], pid: int | None) -> list[str]:
    page = Page(time.time(), width_of(sys.stdout), coloured=takes_colours(sys.stdout))
    if given.all or (given.names and not given.history):
        page = page._replace(versions=_versions(status), emulators=_emulators(status) if given.names else {})
    if given.history:
        return history_view(status, page)
    if given.problems:
        return problems_view(status, pid, page)
    if given.names:
        return named_view(status, page)
    return view(status, pid, page, everything=given.all)
