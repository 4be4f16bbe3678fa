"""Taking back what ``--persistent`` did: the generated file, the copies that it points to, and the entries it names."""

import argparse
from collections.abc import Sequence

from binfmtd.cli.context import print_json, state_dir, warn
from binfmtd.cli.one_shot import visit
from binfmtd.daemon.persistent import Host, Persistence
from binfmtd.daemon.state_dir import running_pid
from binfmtd.errors import MountError
from binfmtd.formats.binfmt_d import Rule
from binfmtd.kernel.mount import Where, find
from binfmtd.model.config import Config
from binfmtd.model.match import same


def take_back(given: argparse.Namespace) -> int:
    """Exit status 0 if nothing of it is left, 1 beside a daemon: then nothing is done, since it would do it again."""
    persistence = Persistence(Host.find(given.host_root))
    directory = state_dir(given)
    if (pid := running_pid(directory)) is not None:
        warn(
            f"nothing was taken back: a daemon keeps this instance (pid {pid or 'unknown'}, state directory "
            f"{directory}): stop it first, or start it without --persistent"
        )
        return 1
    rules = persistence.take_back()
    removed = _remove(rules, directory, Where(given.mount))
    if given.json:
        print_json({"removed": removed, "persistent": None})
    elif rules or removed:
        print(f"removed {persistence.file} and what it points to", *(f"removed {name}" for name in removed), sep="\n")
    else:
        print("nothing to do")
    return 0


def _remove(rules: Sequence[Rule], directory: str, where: Where) -> list[str]:
    """Remove the entries of these rules, but for those that somebody else registered under their names meanwhile."""
    try:
        find(where.directory)
    except MountError:
        return []  # then nothing is registered
    with visit(Config(()), directory, where) as here:
        there = here.look().observed.by_name
        ours = [
            rule.name
            for rule in rules
            if (entry := there.get(rule.name)) is not None
            and entry.registration is not None
            and same(entry.registration.match, rule.registration.match)
        ]
        return here.remove(ours)
