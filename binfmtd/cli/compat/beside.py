"""Refusals beside a daemon: the change of its config and, for entries that it does not declare, commands for a shell.

Example: ``--uninstall qemu-*`` selects qemu-arm, which the daemon declares, and qemu-mine, which another program has
registered.  Without its declaration the daemon removes qemu-arm, but nothing in its config names qemu-mine.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from binfmtd.cli.by_hand import control
from binfmtd.cli.compat.platforms import architecture_of
from binfmtd.cli.one_shot import Visit, refused_beside
from binfmtd.errors import StateError
from binfmtd.files.environment import in_container, in_user_namespace
from binfmtd.host.kernel_module import DEFAULT_DIRECTORY
from binfmtd.report.status import SERVED
from binfmtd.report.status_json import read_status

Wish = Callable[[Collection[str], Mapping[str, str | None]], str]
"""A function that returns the change of the config; "" if it needs none.

Its arguments are names to declare, and declared entries to remove, each with its architecture or None.
"""


def refuse(
    here: Visit, directory: str, wish: Wish, failed: Mapping[str, str | None], unwanted: Collection[str]
) -> StateError:
    """Return the error: nothing was written, and what to do.

    ``directory`` is the state directory, ``failed`` are names to install, each with its architecture or None, and
    ``unwanted`` are entries to remove.
    """
    try:
        rows = read_status(directory)["handlers"]
        handlers: dict[str, str | None] = {row["name"]: row["architecture"] for row in rows}
    except StateError:
        rows = []
        named = {name: architecture_of(name.rpartition("qemu-")[2]) for name in unwanted}
        handlers = {name: architecture.name for name, architecture in named.items() if architecture is not None}
    declared = {name: handlers[name] for name in unwanted if name in handlers}
    by_architecture = {row["architecture"]: row for row in rows if row["architecture"] is not None}
    held = [by_architecture[architecture] for architecture in failed.values() if architecture in by_architecture]
    to_declare = [name for name, architecture in failed.items() if architecture not in by_architecture]
    changes = [wish(to_declare, declared), *_emulators([row for row in held if row["state"] in SERVED])]
    # The message has the pauses in any case.
    by_hand = [_held(row) for row in held if row["state"] not in (*SERVED, "paused")]
    by_hand.append(_by_hand(here, directory, sorted(set(unwanted) - declared.keys())))
    entries = {*failed, *declared, *(row["name"] for row in held)}
    change = " and ".join(filter(None, changes))
    return StateError(
        refused_beside(here.daemon or 0, directory, change, entries, by_hand="; ".join(filter(None, by_hand)))
    )


def _emulators(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Return the change of the config for handlers that are registered, but whose programs do not run."""
    for row in rows:
        yield f"name an emulator that runs, in place of {row['interpreter']}, in [emulators.{row['architecture']}]"


def _held(row: Mapping[str, Any]) -> str:
    """Return why a declared handler is not registered; the reason has the remedy."""
    return f"its handler {row['name']} is {row['state']}" + (f": {row['reason']}" if row["reason"] else "")


def _by_hand(here: Visit, directory: str, unwanted: Collection[str]) -> str:
    """Return what removes foreign entries; "" if there are none."""
    observed = here.assess().observed.by_name
    entries = [observed[name] for name in unwanted if name in observed]
    if not entries:
        return ""
    # A container may end with this command, and may have binfmt_misc mounted for this process alone.
    on_host = in_container() and not in_user_namespace()
    place = DEFAULT_DIRECTORY if on_host else here.instance.mounted.directory
    command = " && ".join(control(place, entry, "-1") for entry in entries)
    steps = [f"`{command}`{' on the host' if on_host else ''} as root"]
    if here.instance.mounted.sealed:
        pause, resume = (f"`binfmtd {word} --seal --state-dir {directory}`" for word in ("pause", "resume"))
        steps = [pause, *steps, resume]
    names = ", ".join(entry.name for entry in entries)
    what, them = ("are no handlers", "them") if entries[1:] else ("is no handler", "it")
    return f"{names} {what} there: to remove {them}, run {', then '.join(steps)}"
