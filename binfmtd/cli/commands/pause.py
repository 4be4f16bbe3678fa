"""``binfmtd pause``: stop repairing some or all entries, or open the seal, so that other programs can change entries.

The command writes the paused names, and when each pause ends, to paused.json in the state directory, which the daemon
watches.  Then it waits until the daemon's status shows the same names.  Before a daemon has run with that directory,
there is no status to compare a name with; the config's handlers are known all the same.
"""

import argparse
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from binfmtd.cli import options
from binfmtd.cli.entry_names import before_a_daemon, config_of, declared, entries, never_ran, unlisted
from binfmtd.cli.output import warn
from binfmtd.cli.state import for_another_daemon, state_dir_to_read
from binfmtd.daemon.state_files.pause_file import LONGEST, PauseFile, since_boot
from binfmtd.daemon.state_files.state_dir import make_state_dir, running_pid
from binfmtd.errors import ConfigError, StateError, UsageError
from binfmtd.files.cure import cure
from binfmtd.files.lock import FileLock
from binfmtd.host.facts import boot_id
from binfmtd.host.kernel_module import DEFAULT_DIRECTORY
from binfmtd.kernel.seal import how_to_open
from binfmtd.model.pause import SEAL, Pauses, shown
from binfmtd.report.printable import printable
from binfmtd.report.status_json import read_status

OBEYED_SECONDS = 10.0
PATIENCE_SECONDS = 5.0
LOCK_NAME = "paused.lock"
_LOOK_SECONDS = 0.02
_SLOW_SECONDS = 1.0  # a daemon that runs applies a pause in a fraction of that
_UNKNOWN = ""  # no entry has this name


def parser() -> argparse.ArgumentParser:
    """Return the parser for ``binfmtd pause``."""
    command = options.parser("pause")
    add_names(command)
    command.add_argument(
        "--for",
        dest="duration",
        metavar="DURATION",
        type=options.with_unit,
        help="end the pause after this time: seconds, or with units like 10m or 1h30m",
    )
    return command


def main(arguments: Sequence[str]) -> int:
    """Return 0 once the daemon obeys, or if none runs; 1 if it does not, or if binfmt_misc stays sealed.

    Raises StateError if the file cannot be written.
    """
    given = parser().parse_args(arguments)
    end = float("inf")
    if given.duration is not None:
        seconds = options.duration(given.duration, "--for", "10m")
        if not seconds:
            raise UsageError("--for 0 would pause nothing: give a longer time, or leave it out")
        if seconds > LONGEST:
            raise UsageError(f"--for: {given.duration!r} is too long: {LONGEST / 3600:g}h at most, or leave it out")
        end = since_boot() + seconds
    directory = state_dir_to_read(given)
    names = chosen(given, directory)
    change(directory, lambda before: before.with_(names, end))
    until = "until `binfmtd resume`" if given.duration is None else f"for {given.duration}"
    print(f"paused {until}: {printable(', '.join(map(shown, names))) or 'everything'}")
    _note_absent(given, directory, names)
    return obeyed(directory) or _opened(directory, seal_alone=given.seal)


def _note_absent(given: argparse.Namespace, directory: str, names: Sequence[str]) -> None:
    """Print the names that no handler and no entry has, as after a slip: a pause of them holds nothing yet."""
    if given.names and never_ran(directory):
        warn(
            f"no daemon has run with the state directory {directory}: the names were compared with "
            f"{config_of(given)} alone, not with the daemon's own config and not with entries of other programs"
        )
        with suppress(ConfigError):  # then all these names were paused already
            known = {name for name, _ in declared(given)}
            if absent := [name for name in names if name not in known]:
                warn(f"no handler of this config has this name: {', '.join(absent)}")
        return
    try:
        status = read_status(directory)
    except StateError:
        return
    there = {row["name"] for row in (*status["handlers"], *status["foreign"])} | {SEAL, *unlisted(status)}
    if status["mount"] is not None and (absent := [name for name in names if name not in there]):
        warn(f"no handler and no entry has this name at the moment: {', '.join(absent)}")


def _opened(directory: str, *, seal_alone: bool) -> int:
    """Print that a pause opens the seal for all entries; return 1 if binfmt_misc stays sealed, else 0."""
    try:
        status = read_status(directory)
    except StateError:
        return 0
    seal, mount = status["seal"], status["mount"]
    if seal["state"] == "paused":
        print(f"binfmt_misc is not sealed now: {seal['reason']}")
    if seal["state"] in ("impossible", "sealed"):
        warn(seal["reason"] or how_to_open(mount["directory"] if mount is not None else DEFAULT_DIRECTORY))
    if seal["state"] == "off" and seal_alone:
        warn("the config does not ask for a seal (sealed = true): there was none to open")
    read_only = mount is not None and mount["read_only"]
    return int(seal["state"] == "sealed" or (seal["state"] == "impossible" and read_only))


def add_names(parser: argparse.ArgumentParser) -> None:
    """Add the options and the names that ``pause`` and ``resume`` share."""
    options.add_config(parser)  # read only before a daemon has run
    options.add_mount(parser)  # every command accepts it; this one ignores it
    options.add_state_dir(parser)
    parser.add_argument(
        "--seal",
        action="store_true",
        help="only the seal: while it is paused, other programs can change entries, and the daemon repairs them",
    )
    parser.add_argument(
        "names", metavar="NAME", nargs="*", help="an entry, or an architecture (any alias); without a NAME, all entries"
    )


def chosen(given: argparse.Namespace, directory: str) -> list[str]:
    """Return the names to pause or to resume; none: everything.  Raises UsageError."""
    if given.seal and given.names:
        raise UsageError("--seal pauses no entry: give either --seal or a NAME")
    if given.seal:
        return [SEAL]
    return before_a_daemon(given, directory) if never_ran(directory) else entries(given.names, directory)


def change(directory: str, to: Callable[[Pauses], Pauses], *, overwrite: bool = False) -> Mapping[str, float] | None:
    """Write the pauses that ``to`` makes of the present ones.

    A lock keeps two commands from undoing each other's change.

    Return what was paused before, and until when in seconds since the boot.  If that cannot be read, return None with
    ``overwrite``, and raise StateError without.  Raises StateError also if nothing can be written.
    """
    make_state_dir(directory)
    file = PauseFile(directory, boot_id())
    lock = FileLock(os.path.join(directory, LOCK_NAME))
    try:
        if not lock.wait(PATIENCE_SECONDS):
            raise StateError(f"another `binfmtd pause` or `resume` is still running with {directory}: try again")
    except OSError as error:
        raise StateError(f"{error.filename}: {error.strerror}: {cure(error)}") from None
    try:
        before = file.read()
        unread = file.problem is not None
        if unread and not overwrite:
            raise StateError(
                f"{file.problem}: run `binfmtd resume` without a name, which writes it anew and ends all pauses"
            )
        if not file.write(to(before)):
            raise StateError(file.problem or "the pause could not be written")
        return None if unread else before.until
    finally:
        lock.give_back()


def obeyed(directory: str) -> int:
    """Wait until the daemon's status shows what the file contains; return 1 if that takes over OBEYED_SECONDS, else 0.

    If no daemon runs, warn and return 0: the next daemon reads the file.
    """
    if running_pid(directory) is None:
        warn(
            f"no daemon runs with the state directory {directory}: the change takes effect when one starts; "
            f"for another daemon, {for_another_daemon()}"
        )
        return 0
    began = time.monotonic()
    file = PauseFile(directory, boot_id())
    changed = wanted = set(file.read().until)
    while (in_force := _paused(directory)) != wanted:
        if time.monotonic() - began >= OBEYED_SECONDS:
            warn(f"the daemon did not apply the change within {OBEYED_SECONDS:g} s: see `binfmtd status`")
            return 1
        time.sleep(_LOOK_SECONDS)
        wanted = set(file.read().until)  # another command may have changed it, or a pause may have ended
    if in_force < changed and time.monotonic() - began >= _SLOW_SECONDS:  # a shorter pause may have been applied unseen
        warn("the pause has ended, and the daemon has not applied it: see `binfmtd status`")
        return 1
    return 0


def _paused(directory: str) -> set[str]:
    try:
        return {row["name"] for row in read_status(directory)["paused"]}
    except StateError:  # the daemon is just starting, or about to write it again
        return {_UNKNOWN}
