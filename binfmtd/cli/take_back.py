"""Taking back what ``--persistent`` did: the generated file, the copies that it points to, and the entries it names."""

import argparse
from contextlib import suppress

from binfmtd.cli import options
from binfmtd.cli.context import print_json, state_dir, warn
from binfmtd.cli.one_shot import refused_beside, visit
from binfmtd.daemon.persistent import Persistence
from binfmtd.errors import MountError
from binfmtd.kernel.mount import find
from binfmtd.model.config import Config
from binfmtd.model.match import same


def take_back(persistence: Persistence, given: argparse.Namespace) -> int:
    """Exit status 0 if nothing of it is left, 1 beside a daemon, which would do it again."""
    rules = persistence.take_back()
    removed: list[str] = []
    daemon = None
    directory = state_dir(given)
    where = options.where(given)
    with suppress(MountError):  # then nothing is registered
        find(where.directory)
        with visit(Config(()), directory, where) as here:
            daemon = here.daemon
            there = here.look().observed.by_name
            # What somebody else registered under the name meanwhile takes other files, and is theirs.
            ours = [
                rule.name
                for rule in rules
                if (entry := there.get(rule.name)) is not None
                and entry.registration is not None
                and same(entry.registration.match, rule.registration.match)
            ]
            removed = here.remove(ours)
    if given.json:
        print_json({"removed": removed, "persistent": None})
    elif rules or removed:
        print(f"removed {persistence.file} and what it points to" + "".join(f"\nremoved {name}" for name in removed))
    else:
        print("nothing to do")
    if daemon is not None:
        warn(refused_beside(daemon, directory, "no more than is to stay"))
        return 1
    return 0
