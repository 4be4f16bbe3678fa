"""``binfmtd status``: what the daemon says of itself."""

import argparse
from collections.abc import Sequence
from typing import Any

from binfmtd.cli import options
from binfmtd.cli.context import print_json, print_table, state_dir_to_read, warn
from binfmtd.daemon.state_dir import running_pid
from binfmtd.errors import StateError
from binfmtd.model.pause import EVERYTHING
from binfmtd.report.printable import printable
from binfmtd.report.status import FILE_NAME, read_status

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
    command.add_argument("--check", action="store_true", help="exit with 3 unless all is converged")
    return command


def main(arguments: Sequence[str]) -> int:
    """Exit status 0, or 1 if no daemon runs; with --check 3 unless it runs and has converged."""
    given = parser().parse_args(arguments)
    directory = state_dir_to_read(given)
    try:
        status = read_status(directory)
    except StateError as error:
        if not given.check:
            raise
        warn(str(error))
        return NOT_CONVERGED
    pid = running_pid(directory)
    if given.json:
        print_json({**status, "pid": pid})
    else:
        show(status)
    if pid is None:
        warn("no daemon runs with this state directory: what you see is what the last one left")
    if given.check:
        return FRESH if pid is not None and status["state"] == "converged" else NOT_CONVERGED
    return FRESH if pid is not None else STALE


def show(status: dict[str, Any]) -> None:
    """Print it for people; raises StateError for a file that no daemon has written so."""
    try:
        rows, lines = _rows(status), _lines(status)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise StateError(f"{FILE_NAME} is damaged: the daemon writes it anew with its next pass") from None
    print_table(rows)
    print()
    for key, text in lines.items():
        print(f"{key + ':':<11}{printable(text)}")


def _pause(row: dict[str, Any]) -> str:
    name = "everything" if row["name"] == EVERYTHING else row["name"]
    return f"{name} until {row['until'] or '`binfmtd resume`'}"


def _rows(status: dict[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("HANDLER", "STATE", "FLAGS", "REPAIRS", "INTERPRETER", "REASON")]
    for row in status["handlers"]:
        rows.append(tuple(str(row[key.lower()]) for key in ("name", *rows[0][1:])))
    return rows


def _lines(status: dict[str, Any]) -> dict[str, str]:
    foreign = [f"{entry['name']}{'' if entry['enabled'] else ' (disabled)'}" for entry in status["foreign"]]
    config = status["config"]
    lines: dict[str, str | None] = {
        "foreign": ", ".join(foreign) or "none",
        "mount": "none" if status["mount"] is None else status["mount"]["directory"],
        "config": f"{', '.join(config['files']) or 'none: the defaults'}, generation {config['generation']}, "
        f"loaded {config['loaded_at']}",
        "rejected": config["error"],
        "problem": status["problem"],
        "contended": ", ".join(status["contended"]),
        "paused": ", ".join(map(_pause, status["paused"])),
        "state": f"{status['state']}, {status['repairs']} repairs in {status['passes']} passes",
    }
    return {key: str(text) for key, text in lines.items() if text}
