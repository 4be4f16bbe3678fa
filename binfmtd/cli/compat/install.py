"""Install handlers beside existing entries: keep an entry that works, and replace one that does not without a gap.

An entry works if a tiny program runs through it in a chroot.  An entry is stale if it does not run the emulator that is
at the path now; the ledger records that, or the trial before each pass finds it out (cli/trial.py).  So the ordinary
plan leaves an entry that is as desired, and replaces a stale one.
"""

import time
from collections.abc import Collection, Sequence
from enum import Enum, auto
from errno import EEXIST
from typing import NamedTuple

from binfmtd.catalog.architectures import CATALOG
from binfmtd.catalog.program import tiny_program
from binfmtd.cli.one_shot import Visit
from binfmtd.cli.trial import server
from binfmtd.daemon.assessment import Assessment
from binfmtd.host.probe import Prober
from binfmtd.host.probe_process import Attempt
from binfmtd.model.config import Config, HandlerSpec
from binfmtd.model.drift import additive
from binfmtd.model.handler import Flags
from binfmtd.model.ownership import equal
from binfmtd.model.plan import INSTANCE
from binfmtd.model.stand_in import stand_in_name
from binfmtd.report.status import unavailable_reason


class Fate(Enum):
    """The result for one handler."""

    DONE = auto()  # registered, replaced or enabled
    THERE = auto()  # an existing entry stays as it is
    FAILED = auto()


class Outcome(NamedTuple):
    """The fate of one handler, with the reason if it failed."""

    fate: Fate
    reason: str = ""


THERE = Outcome(Fate.THERE)
_RESTORED = 0.25  # seconds in which a daemon registers its stand-ins again; it takes less than 1 ms on an idle machine
_POLLED = 0.005  # seconds between two looks for them


def replace_entries(
    here: Visit, probe: Prober, to_remove: Collection[str], specs: Sequence[HandlerSpec], *, reinstall: bool = False
) -> tuple[set[str], dict[str, Outcome]]:
    """Remove entries, foreign ones too, and install the declared handlers; ``reinstall`` replaces those that exist.

    A name that is both is replaced without a gap; if that fails, it is removed.  Return the names of the entries to
    remove that are gone, and the outcome of each declared handler.  While a daemon keeps the instance nothing is
    written, and each handler that is not in place has failed.  Raises WriteRefusedError and ProbeError.
    """
    declared = {spec.name for spec in specs}
    both = declared.intersection(to_remove)
    gone = _remove(here, set(to_remove) - declared)
    here.reconciler.use(Config(tuple(specs)))
    outcomes = _install(here, probe, declared if reinstall else both)
    _remove(here, {name for name in both if outcomes[name].fate is Fate.FAILED})
    return (gone | both if here.writes else gone), outcomes


def _remove(here: Visit, names: Collection[str]) -> set[str]:
    """Remove entries and their stand-ins; return the names of the entries that existed.

    The stand-ins are removed first.  A daemon in another container registers them again at once, and only then are the
    entries removed: so programs can be executed all the while.  Without a daemon the stand-ins do not come back.
    """
    stand_ins = here.remove([stand_in_name(name) for name in names])
    give_up = time.monotonic() + _RESTORED
    while any(here.instance.inode(name) is None for name in stand_ins) and time.monotonic() < give_up:
        time.sleep(_POLLED)
    return set(here.remove(names))


def _install(here: Visit, probe: Prober, renewed: Collection[str]) -> dict[str, Outcome]:
    specs = here.reconciler.config.specs
    if not specs:
        return {}
    if here.writes:
        here.renew(renewed)
        if not here.assess().observed.switched_on:  # while it is off, no program would run
            here.converge(lambda action: action.entry == INSTANCE)
    assessment = here.assess()
    settled: dict[str, Outcome] = {}
    for declared in specs:
        if declared.name in renewed and here.writes:
            continue
        if outcome := _judge(here, assessment, declared, probe):
            settled[declared.name] = outcome
    result = here.converge(lambda action: action.entry not in settled and additive(action))
    reasons = {action.entry: _undone(here) for action in result.assessment.plan.actions}
    reasons |= {action.entry: str(error) for action, error in result.failed}
    reasons |= {
        unavailable.name: unavailable_reason(unavailable) for unavailable in result.assessment.desired.unavailable
    }
    there = result.assessment.observed.by_name
    raced = {action.entry for action, error in result.failed if error.errno == EEXIST and action.entry in there}
    done = {action.entry for action in result.done}
    outcomes: dict[str, Outcome] = {}
    for declared in specs:
        name = declared.name
        if name in settled:
            outcomes[name] = settled[name]
        elif name in raced:  # another program registered the name first
            outcomes[name] = THERE
        elif name in reasons:
            outcomes[name] = Outcome(Fate.FAILED, reasons[name])
        elif name in done:
            outcomes[name] = _tried(declared, probe)
        else:
            as_if_new = name in renewed and here.writes  # without F an equal entry needs no new registration
            outcomes[name] = Outcome(Fate.DONE) if as_if_new else THERE
    return outcomes


def _tried(declared: HandlerSpec, probe: Prober) -> Outcome:
    """Return the outcome of a registration by trying it: a program may fail although the kernel accepted the entry.

    Without flag F, or without an architecture, it cannot be tried in a chroot and counts as done.
    """
    if declared.architecture is None or Flags.F not in declared.flags:
        return Outcome(Fate.DONE)
    probed = probe(declared.architecture, tiny_program(CATALOG[declared.architecture]))
    return Outcome(Fate.DONE) if probed.runs else _unable(probed)


def _judge(here: Visit, assessment: Assessment, declared: HandlerSpec, probe: Prober) -> Outcome | None:
    """Return the outcome if the existing entry decides it; None leaves the handler to the ordinary plan.

    Another entry may take the programs and fail: then this name is marked for registration anew, above that entry.
    """
    architecture = declared.architecture
    entry = assessment.observed.by_name.get(declared.name)
    if architecture is None or (here.writes and (entry is None or not entry.enabled)):
        return None
    handler = assessment.desired.by_name.get(declared.name)
    path = handler.registration.interpreter if handler else None
    probed = probe(architecture, tiny_program(CATALOG[architecture]), path)
    if entry is None or not here.writes:
        return THERE if probed.runs else None
    serving = server(assessment.observed, architecture)
    if serving is not None and serving.name not in (entry.name, stand_in_name(entry.name)):
        if not probed.runs:  # so that the new entry is above the serving one
            here.renew({entry.name})
        return THERE if probed.runs else None
    if handler is None or not equal(entry.registration, handler.registration):
        return THERE if probed.runs else None
    return _unable(probed) if probed.as_expected and not probed.runs else None


def _unable(probed: Attempt) -> Outcome:
    return Outcome(Fate.FAILED, f"it is registered, but its programs do not run: {probed.reason}")


def _undone(here: Visit) -> str:
    if here.daemon is not None:
        return f"a daemon (pid {here.daemon or 'unknown'}) manages this instance, so nothing was written"
    return "another program is changing this entry: try again"
