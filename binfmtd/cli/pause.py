"""``binfmtd pause``: an admin's maintenance is not undone."""

import argparse
import time
from collections.abc import Callable, Sequence

from binfmtd.catalog.names import did_you_mean, find
from binfmtd.cli import options
from binfmtd.cli.output import warn
from binfmtd.cli.state import state_dir_to_read
from binfmtd.daemon.pause_file import PauseFile, since_boot
from binfmtd.daemon.state_dir import make_state_dir, running_pid
from binfmtd.errors import FormatError, StateError, UsageError
from binfmtd.formats.duration import parse_duration
from binfmtd.kernel.host import boot_id
from binfmtd.model.pause import Pauses
from binfmtd.report.printable import printable
from binfmtd.report.status_json import read_status

OBEYED_SECONDS = 10.0
_LOOK_SECONDS = 0.02


def parser() -> argparse.ArgumentParser:
    """What the command line may say."""
    command = options.parser("pause")
    add_names(command)
    command.add_argument(
        "--for", dest="duration", metavar="DURATION", help="end by itself after so long, like 10m or 1h30m"
    )
    return command


def main(arguments: Sequence[str]) -> int:
    """Exit status 0 once the daemon obeys; 1 if it does not, or if the file cannot be written."""
    given = parser().parse_args(arguments)
    end = float("inf")
    if given.duration is not None:
        try:
            end = since_boot() + parse_duration(given.duration)
        except FormatError as error:
            raise UsageError(f"--for: {given.duration!r} {error}, like 10m") from None
    directory = state_dir_to_read(given)
    names = entries(given.names, directory)
    pauses = change(directory, lambda before: before.with_(names, end))
    until = "until `binfmtd resume`" if given.duration is None else f"for {given.duration}"
    print(f"paused {until}: {printable(', '.join(names)) or 'everything'}")
    return obeyed(directory, pauses)


def add_names(parser: argparse.ArgumentParser) -> None:
    """What ``pause`` and ``resume`` share."""
    options.add_config(parser)  # every command takes these two; here they make no difference
    options.add_mount(parser)
    options.add_state_dir(parser)
    parser.add_argument(
        "names", metavar="NAME", nargs="*", help="an entry, or an architecture by any name; without one: everything"
    )


def entries(names: Sequence[str], directory: str) -> list[str]:
    """The entries that are meant, by the daemon's status.  Raises UsageError for one that it knows nothing of."""
    if not names:
        return []
    status = read_status(directory)
    known = {row["name"]: row["architecture"] for row in status["handlers"]}
    known |= {row["name"]: None for row in (*status["foreign"], *status.get("paused", ()))}
    found = []
    for name in names:
        entry = name if name in known else next((e for e, a in known.items() if a is not None and _is(a, name)), None)
        if entry is None:
            hint = did_you_mean(name, tuple(known)) or "`binfmtd status` lists what there is"
            raise UsageError(f"{name!r} is neither an entry nor a handler's architecture here: {hint}")
        found.append(entry)
    return found


def change(directory: str, to: Callable[[Pauses], Pauses]) -> Pauses:
    """Write what is to be paused from now on.  Raises StateError."""
    make_state_dir(directory)
    file = PauseFile(directory, boot_id())
    pauses = to(file.read())
    if not file.write(pauses):
        raise StateError(file.problem or "the pause could not be written")
    return pauses


def obeyed(directory: str, pauses: Pauses) -> int:
    """Wait until the daemon's status says so; 1 if it does not.  Without a daemon the next one obeys."""
    if running_pid(directory) is None:
        warn("no daemon runs with this state directory: the next one will obey")
        return 0
    deadline = time.monotonic() + OBEYED_SECONDS
    while _paused(directory) != set(pauses.at(since_boot()).until):
        if time.monotonic() >= deadline:
            warn(f"the daemon has not obeyed within {OBEYED_SECONDS:g} s: `binfmtd status` says what it does")
            return 1
        time.sleep(_LOOK_SECONDS)
    return 0


def _is(architecture: str, name: str) -> bool:
    try:
        return find(name).name == architecture
    except FormatError:
        return False


def _paused(directory: str) -> set[str] | None:
    try:
        return {row["name"] for row in read_status(directory).get("paused", ())}
    except StateError:  # it is just starting
        return None
