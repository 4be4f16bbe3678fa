"""Register a whole set of handlers, for the images whose command line has no list of platforms."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import NamedTuple

from binfmtd.catalog.architectures import CATALOG
from binfmtd.cli.compat.beside import refuse
from binfmtd.cli.compat.emulators import without_config
from binfmtd.cli.compat.install import Fate, Outcome, replace_entries
from binfmtd.cli.compat.main import log
from binfmtd.cli.one_shot import visit
from binfmtd.daemon.interpreters.host_facts import HostFacts
from binfmtd.daemon.state_files.state_dir import default_state_dir
from binfmtd.files.distribution import emulators_remedy
from binfmtd.host.interpreters import file_identity
from binfmtd.host.probe import Prober
from binfmtd.kernel.mount import Where
from binfmtd.model.config import Config, HandlerSpec, SetBy
from binfmtd.model.entry import ObservedState
from binfmtd.model.handler import Flags
from binfmtd.model.stand_in import is_stand_in

Declare = Callable[[Collection[str]], Sequence[HandlerSpec]]
"""A function from the architectures that run natively (QEMU's names) to the handlers to register."""

NO_CONFIG = without_config()
EVERY = 'write `architectures = ["all"]`'  # the equivalent in a daemon's config


class Registered(NamedTuple):
    """The outcome of each handler, in declared order, and the entries afterwards."""

    outcomes: Mapping[str, Outcome]
    observed: ObservedState


def register(where: Where, declare: Declare, wish: str, reset: str | None = None) -> Registered:
    """Register handlers; existing entries of their names are registered anew, without a gap.

    With ``reset``, a glob over names, only matching entries are registered anew or, if not declared, removed; other
    entries that work stay as they are.  ``wish`` is the equivalent change to a daemon's config.  Raises MountError,
    WriteRefusedError, ProbeError and StateError; the latter also if a daemon keeps the instance and its entries differ
    from the request.
    """
    directory = default_state_dir()
    with visit(Config(()), directory, where) as here, Prober() as probe:
        observed = here.assess().observed
        specs = declare(HostFacts(directory).native(observed))
        to_remove = {name for name in observed.by_name if fnmatchcase(name, reset or "") and not is_stand_in(name)}
        _, outcomes = replace_entries(here, probe, to_remove, specs, reinstall=reset is None)
        left = to_remove.difference(spec.name for spec in specs)
        failed = {name for name, outcome in outcomes.items() if outcome.fate is Fate.FAILED}
        if here.daemon is not None and (left or failed):
            architectures = {spec.name: spec.architecture for spec in specs if spec.name in failed}
            change = partial(_change, wish)
            raise refuse(here, directory, change, architectures, left)
        return Registered(outcomes, here.assess().observed)


def _change(wish: str, to_declare: Collection[str], to_remove: Mapping[str, str | None]) -> str:
    return wish if to_declare or to_remove else ""


def every_architecture(
    native: Collection[str],
    patterns: Sequence[str],
    flags: Flags,
    *,
    even_without: bool = False,
    set_by: SetBy = NO_CONFIG,
) -> Iterator[HandlerSpec]:
    """Return a handler for each architecture that does not run natively and has an emulator here.

    ``even_without`` includes architectures without an emulator.  ``patterns`` are the paths of the emulators, with
    ``{name}`` for QEMU's name; the first path that exists is used.
    """
    for row in CATALOG.values():
        paths = tuple(pattern.replace("{name}", row.name) for pattern in patterns)
        if row.name not in native and (even_without or any(map(file_identity, paths))):
            name = f"qemu-{row.name}"
            yield HandlerSpec(name, row.match, paths, flags, architecture=row.name, source=name, set_by=set_by)


def conclude(outcomes: Mapping[str, Outcome], place: str = "here", set_by: SetBy = NO_CONFIG) -> int:
    """Print on stderr what failed, or that ``place`` has no emulator at all; return the exit status, 0 or 1."""
    if not outcomes:
        log(f"error: no architecture has an emulator {place}: {emulators_remedy(set_by=set_by.paths)}")
        return 1
    failed = {name: outcome.reason for name, outcome in outcomes.items() if outcome.fate is Fate.FAILED}
    for name, reason in failed.items():
        log(f"error: {name}: {reason}")
    return 1 if failed else 0
