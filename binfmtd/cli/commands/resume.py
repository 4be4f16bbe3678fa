"""``binfmtd resume``: end a pause; the daemon then repairs what drifted meanwhile."""

import argparse
from collections.abc import Sequence

from binfmtd.cli import options
from binfmtd.cli.commands.pause import add_names, change, chosen, obeyed
from binfmtd.cli.state import state_dir_to_read
from binfmtd.errors import UsageError
from binfmtd.model.pause import EVERYTHING, Pauses, shown
from binfmtd.report.printable import printable


def parser() -> argparse.ArgumentParser:
    """Return the parser for ``binfmtd resume``."""
    command = options.parser("resume")
    add_names(command)
    return command


def main(arguments: Sequence[str]) -> int:
    """Return 0 once the daemon repairs these entries again, or if none runs; 1 if it does not.

    A name that was not paused is reported, and is no failure.  Raises StateError if the file cannot be written.
    """
    given = parser().parse_args(arguments)
    directory = state_dir_to_read(given)
    names = chosen(given, directory)

    def without(before: Pauses) -> Pauses:
        if names and EVERYTHING in before.until:
            raise UsageError("everything is paused: run `binfmtd resume` without a name, which ends all pauses")
        return before.without(names)

    before = change(directory, without, overwrite=not names)
    if not names:
        print("nothing was paused" if before == {} else "resumed: everything")
    for word, paused in (("resumed", True), ("not paused", False)):
        if some := [name for name in names if (name in (before or {})) is paused]:
            print(f"{word}: {printable(', '.join(map(shown, some)))}")
    return obeyed(directory)
