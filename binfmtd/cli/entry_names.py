"""The entries that names on a command line mean: an architecture in any spelling, or the name of an entry.

A name is compared with the daemon's status.  Before a daemon has run there is none: then it is compared with the
handlers of the config, and the names of foreign entries are not known.
"""

import argparse
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from binfmtd.catalog.architectures import CATALOG
from binfmtd.catalog.names import did_you_mean, find
from binfmtd.config.build import DEFAULT_ENTRY
from binfmtd.config.file_versions import DEFAULT_PATH
from binfmtd.daemon.state_files.pause_file import PauseFile
from binfmtd.daemon.state_files.state_dir import running_pid
from binfmtd.errors import FormatError, UsageError
from binfmtd.host.facts import boot_id
from binfmtd.report.status_json import FILE_NAME, read_status


def entries(names: Sequence[str], directory: str) -> list[str]:
    """Return the entries that these names mean, whether they are registered at the moment or not.

    A name is an entry of the daemon's status, one that is paused already, or an architecture.  Raises UsageError for
    any other, unless binfmt_misc is not mounted: then the status has no entries that a name could be compared with.
    """
    if not names:
        return []
    status = read_status(directory)
    others = {*(row["name"] for row in status["foreign"]), *unlisted(status), *_paused_already(directory)}

    def unknown(name: str, known: Sequence[str]) -> str:
        if status["mount"] is None:
            return name
        hint = did_you_mean(name, known) or "`binfmtd status` lists the entries"
        raise UsageError(f"{name!r} is neither an entry nor an architecture here: {hint}")

    return _meant(names, [(row["name"], row["architecture"]) for row in status["handlers"]], others, unknown)


def before_a_daemon(given: argparse.Namespace, directory: str) -> list[str]:
    """Return the entries that the names mean by the config and by what is paused already.

    Raises UsageError for any other name, and ConfigError.
    """
    paused = _paused_already(directory)
    if paused.issuperset(given.names):
        return list(dict.fromkeys(given.names))

    def unknown(name: str, known: Sequence[str]) -> str:
        hint = did_you_mean(name, known) or "name the daemon's config with --config, or leave the name out"
        raise UsageError(
            f"{name!r} is neither a handler of {config_of(given)} nor an architecture, and before a daemon has run "
            f"with the state directory {directory}, no other names are known: {hint}"
        )

    return _meant(given.names, declared(given), paused, unknown)


def _meant(
    names: Sequence[str],
    handlers: Sequence[tuple[str, str | None]],
    others: Collection[str],
    unknown: Callable[[str, Sequence[str]], str],
) -> list[str]:
    """Return the entries that ``names`` mean: handlers (name, architecture), ``others``, or those of an architecture.

    ``unknown`` gets any other name, with the known ones; it returns the entry that this means, or raises UsageError.
    """
    of_architecture: dict[str, list[str]] = {name: [DEFAULT_ENTRY.format(name=name)] for name in CATALOG}
    of_architecture |= {architecture: [] for _, architecture in handlers if architecture is not None}
    for name, architecture in handlers:
        if architecture is not None:
            of_architecture[architecture].append(name)
    known = {*(name for name, _ in handlers), *others}
    known |= {entry for entry_names in of_architecture.values() for entry in entry_names}
    meant: list[str] = []
    for name in names:
        if name in known:
            meant.append(name)
        elif (found := _architecture(name)) is not None:
            meant += of_architecture[found]
        else:
            meant.append(unknown(name, tuple(known)))
    return list(dict.fromkeys(meant))


def declared(given: argparse.Namespace) -> list[tuple[str, str | None]]:
    """Return the handlers of the config, each with its architecture.  Raises ConfigError."""
    from binfmtd.cli.context import load_config

    return [(spec.name, spec.architecture) for spec in load_config(given).specs]


def config_of(given: argparse.Namespace) -> str:
    """Return the config in words, for messages."""
    return f"the config {given.config or DEFAULT_PATH}"


def never_ran(directory: str) -> bool:
    """Return True if no daemon runs with this state directory, and none has left a status there."""
    try:
        os.lstat(os.path.join(directory, FILE_NAME))
    except FileNotFoundError:
        return running_pid(directory) is None
    except OSError:  # this user may not see it
        return False
    return False


def _paused_already(directory: str) -> frozenset[str]:
    return frozenset(PauseFile(directory, boot_id()).read().until)


def unlisted(status: Mapping[str, Any]) -> list[str]:
    """Return the names of all entries if the status lists only some of the foreign ones, else none."""
    if sum(status["foreign_count"].values()) <= len(status["foreign"]) or status["mount"] is None:
        return []
    try:
        return sorted(set(os.listdir(status["mount"]["directory"])) - {"register", "status"})
    except OSError:  # the daemon may be in another mount namespace
        return []


def _architecture(name: str) -> str | None:
    try:
        return find(name).name
    except FormatError:
        return None
