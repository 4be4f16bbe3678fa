"""Undo ``--persistent``: remove the entries that the generated file names, the file, and the emulators it points to.

The order is this one so that an interrupted run can be repeated: the file still names the entries.
"""

import argparse
from collections.abc import Mapping

from binfmtd.cli import options
from binfmtd.cli.one_shot import Visit, visit
from binfmtd.cli.output import print_json, warn
from binfmtd.cli.state import state_dir
from binfmtd.daemon.state_files.boot_persistence import BootPersistence, find_host, is_copy_of
from binfmtd.errors import MountError, VanishError
from binfmtd.model.config import Config
from binfmtd.model.handler import Registration
from binfmtd.model.match import same
from binfmtd.model.stand_in import stand_in_name
from binfmtd.report.printable import printable

DONE = 0
FAILED = 1


def take_back(given: argparse.Namespace) -> int:
    """Return 0 if nothing of it is left.

    Return 1 if a daemon runs, which would do it again (nothing is then removed), or if entries may be left.
    """
    boot_persistence = BootPersistence(find_host(given.host_root, to_take_back=True))
    rules = boot_persistence.rules()
    directory = state_dir(given)
    removed: list[str] = []
    status = DONE
    try:
        with visit(Config(()), directory, options.where(given)) as here:
            if here.daemon is not None:
                warn(
                    f"nothing was removed: a daemon (pid {here.daemon or 'unknown'}, state directory {directory}) "
                    "manages this instance and would register the entries again: stop it, then run this again"
                )
                return FAILED
            removed = here.remove(_ours(here, rules))
    except VanishError:
        pass  # no other process has it mounted, so nothing is registered
    except MountError as error:
        if rules:
            warn(f"entries may still be registered: {error}")
            status = FAILED
    there = boot_persistence.take_back()
    if given.json:
        print_json({"removed": removed, "persistent": None})
    elif there or removed:
        for what in (f"{boot_persistence.named} and its copies of emulators", *removed):
            print(printable(f"removed {what}"))
    else:
        print("nothing to do")
    return status


def _ours(here: Visit, rules: Mapping[str, Registration]) -> list[str]:
    """Return the entries of these rules, and the stand-ins that a daemon has left of them.

    Those that another program registered under their names since are left out.
    """
    there = here.assess().observed.by_name
    return [
        name
        for handler, rule in rules.items()
        for name in (handler, stand_in_name(handler))
        if (entry := there.get(name)) is not None
        and entry.registration is not None
        and same(entry.registration.match, rule.match)
        and is_copy_of(rule.interpreter, entry.registration.interpreter)
    ]
