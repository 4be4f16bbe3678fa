"""Refusals beside a daemon: the change of its config and, for entries that it does not declare, commands for a shell.

Example: ``--uninstall qemu-*`` selects qemu-arm, which the daemon declares, and qemu-mine, which another program has
registered.  Without its declaration the daemon removes qemu-arm, but nothing in its config names qemu-mine.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from binfmtd.cli.by_hand import control
from binfmtd.cli.compat.platforms import architecture_of
from binfmtd.cli.one_shot import Visit, refused_beside
from binfmtd.errors import StateError
from binfmtd.files.environment import in_container, in_user_namespace
from binfmtd.host.kernel_module import DEFAULT_DIRECTORY
from binfmtd.report.status_json import read_status

Wish = Callable[[Mapping[str, str | None]], str]
"""A function from entries to remove, each with its architecture if the daemon's status has it, to a change of config.

It returns "" if the config needs no change.
"""


def refuse(here: Visit, directory: str, wish: Wish, failed: Collection[str], unwanted: Collection[str]) -> StateError:
    """Return the error: nothing was written, and what to do.

    ``directory`` is the state directory, ``failed`` are names to install, ``unwanted`` are entries to remove.
    """
    try:
        handlers = {row["name"]: row["architecture"] for row in read_status(directory)["handlers"]}
    except StateError:
        rows = {name: architecture_of(name.rpartition("qemu-")[2]) for name in unwanted}
        handlers = {name: row and row.name for name, row in rows.items()}
    declared: dict[str, Any] = {name: handlers[name] for name in unwanted if name in handlers}
    by_hand = _by_hand(here, directory, sorted(set(unwanted) - declared.keys()))
    return StateError(
        refused_beside(here.daemon or 0, directory, wish(declared), {*failed, *declared}, by_hand=by_hand)
    )


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
