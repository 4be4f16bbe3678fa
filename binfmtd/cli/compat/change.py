"""``--uninstall`` and ``--install`` of tonistiigi/binfmt, with their log lines on stderr.

Beyond the original: an entry that is both uninstalled and installed is replaced without a gap; an architecture that
runs natively gets no emulator; and while a daemon keeps the instance nothing is written.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

from binfmtd.catalog.architectures import CATALOG
from binfmtd.catalog.program import tiny_program
from binfmtd.cli.compat.beside import refuse
from binfmtd.cli.compat.emulators import spec
from binfmtd.cli.compat.install import THERE, Fate, Outcome, replace_entries
from binfmtd.cli.compat.main import log
from binfmtd.cli.compat.platforms import ORDER, architecture_of, go_name
from binfmtd.cli.compat.selection import select
from binfmtd.cli.one_shot import more_architectures, visit
from binfmtd.cli.trial import server
from binfmtd.daemon.interpreters.host_facts import HostFacts
from binfmtd.daemon.state_files.state_dir import default_state_dir
from binfmtd.host.interpreters import cannot_run, file_identity
from binfmtd.host.probe import Prober
from binfmtd.kernel.mount import Where
from binfmtd.model.config import Config, HandlerSpec
from binfmtd.model.entry import ObservedState
from binfmtd.model.stand_in import stand_in_name

ALL = "all"


class Request(NamedTuple):
    """A platform to install.

    ``label`` is its name in the log.  Without a handler, ``instead`` is the reason and ``bad`` is True for an error.
    """

    label: str
    declared: HandlerSpec | None
    instead: str = ""
    bad: bool = False


def change(uninstall: str, to_install: str, where: Where) -> list[str]:
    """Remove the entries of ``uninstall``, install ``to_install``; return the log lines of what could not be installed.

    Raises MountError, WriteRefusedError, ProbeError and StateError if nothing could be done at all.  Raises StateError
    also if a daemon keeps the instance and its entries differ from the request, and UsageError for invalid variables.
    """
    directory = default_state_dir()
    with visit(Config(()), directory, where) as here, Prober() as probe:
        observed = here.assess().observed
        selected = list(select(uninstall, observed.by_name))
        to_remove = {name for _, names in selected for name in names}
        requests: list[Request] = []
        if to_install:
            native = HostFacts(directory).native(observed)
            everything = to_install == ALL
            requests += _all(observed, to_remove, native, probe) if everything else _listed(to_install, native)
        declared = {request.declared.name: request.declared for request in requests if request.declared}
        gone, outcomes = replace_entries(here, probe, to_remove, tuple(declared.values()))
        gone |= to_remove - here.assess().observed.by_name.keys()  # another program may have removed it first
        for label, names in selected:
            log(f"uninstalling: {label} {_uninstalled(names, gone)}")
        failures: list[str] = []
        for line, bad in _installed(requests, outcomes, here.instance.mounted.directory, quiet=to_install == ALL):
            log(line)
            failures += [line] if bad else []
        failed = {name for name, outcome in outcomes.items() if outcome.fate is Fate.FAILED}
        unwanted = to_remove - declared.keys()
        if here.daemon is not None and (failed or unwanted):
            labels = {request.declared.name: request.label for request in requests if request.declared}
            architectures = {name: declared[name].architecture for name in declared if name in failed}
            raise refuse(here, directory, partial(_wish, labels), architectures, unwanted)
    return failures


def _listed(words: str, native: Collection[str]) -> Iterator[Request]:
    """Return the platforms in the comma list ``words``, with their handlers or the reason why they get none."""
    for word in words.split(","):
        row = architecture_of(word)
        if row is None:
            yield Request(word, None, f"unsupported architecture: {word}", bad=True)
        elif row.name in native:
            yield Request(go_name(row), None, "already runs natively")
        else:
            yield Request(go_name(row), spec(row))


def _all(
    observed: ObservedState, to_remove: Collection[str], native: Collection[str], probe: Prober
) -> Iterator[Request]:
    """Return the platforms that have an emulator here but do not run, or will not without the entries ``to_remove``.

    A platform that runs through an entry of the handler's own name is included, since that entry may be stale.
    """
    without = {*to_remove, *map(stand_in_name, to_remove)}
    for row in map(CATALOG.__getitem__, ORDER):
        declared = spec(row)
        if row.name in native or not any(map(file_identity, declared.interpreters)):
            continue
        serving = server(observed, row.name)
        left = server(observed, row.name, without)
        if left is None or left.name == declared.name:
            runs = False
        elif left is serving:
            runs = probe(row.name, tiny_program(row)).runs
        else:
            runs = not cannot_run(left)  # an entry that is removed covers it, so it cannot be tried
        if not runs:
            yield Request(go_name(row), declared)


def _uninstalled(names: Collection[str], gone: Collection[str]) -> str:
    if not names:
        return "not found"
    return "OK" if set(names) <= set(gone) else "was not removed"


def _installed(
    requests: Iterable[Request], outcomes: Mapping[str, Outcome], directory: str, *, quiet: bool
) -> Iterator[tuple[str, bool]]:
    """Return the log lines about what was installed, with True for an error.

    ``quiet`` leaves out entries that existed before.
    """
    outcome_of = dict(outcomes)
    for request in requests:
        line = f"installing: {request.label}"
        if request.declared is None:
            yield f"{line} {request.instead}", request.bad
            continue
        name = request.declared.name
        if outcome_of[name].fate is Fate.DONE:
            outcome_of[name] = THERE  # for a second request of the same, like arm/v7,arm/v6
            yield f"{line} OK", False
        elif outcome_of[name].fate is Fate.FAILED:
            path = request.declared.interpreters[0]
            yield f'{line} cannot register "{path}" to {directory}/register: {outcome_of[name].reason}', True
        elif not quiet:
            yield f"{line} {name} already registered", False


def _wish(labels: Mapping[str, str], to_declare: Collection[str], to_remove: Mapping[str, str | None]) -> str:
    """Return the change to the daemon's config that has the effect of this request; "" if it needs none.

    ``labels`` are the platforms of entries, and ``to_remove`` are declared entries, each with its architecture.
    """
    added = [labels[name] for name in to_declare]
    removed = sorted({name for name in to_remove.values() if name is not None})
    handlers = sorted(name for name, architecture in to_remove.items() if architecture is None)
    wishes = [more_architectures(added)] if added else []
    if removed:
        left_out = ", ".join(f'"-{name}"' for name in removed)
        wishes.append(f'take {", ".join(removed)} out of `architectures` (or add {left_out} to it if it has "all")')
    if handlers:
        wishes.append(f"leave out the handler{'s' if handlers[1:] else ''} {', '.join(handlers)}")
    return " and ".join(wishes)
