"""Trying what somebody else registered: an entry may be as good as ours, and only running a program can tell.

With F an entry runs the file that the kernel opened, whatever lies at its path now.  A container has no ledger of what
an earlier one registered; so the entries that look as wanted are tried, and the ledger vouches for those that run the
very emulator that would be registered.
"""

from collections.abc import Collection

from binfmtd.catalog.architectures import CATALOG
from binfmtd.catalog.program import tiny_program
from binfmtd.daemon.ledger import Ledger
from binfmtd.daemon.look import Look
from binfmtd.daemon.reconcile import Reconciler
from binfmtd.errors import ProbeError
from binfmtd.kernel.instance import Instance
from binfmtd.model.drift import Drift, Record
from binfmtd.model.entry import Entry, ObservedState
from binfmtd.model.match import takes
from binfmtd.model.standin import stand_in_name


def server(observed: ObservedState, architecture: str, without: Collection[str] = ()) -> Entry | None:
    """The entry that takes an architecture's programs, as far as can be told from what the entries say."""
    program = tiny_program(CATALOG[architecture])
    for entry in observed.entries:
        registration = entry.registration
        if entry.enabled and entry.name not in without and registration and takes(registration.match, program):
            return entry
    return None


def look_and_try(reconciler: Reconciler, instance: Instance) -> Look:
    """Look, and try the entries that the ledger does not know: those that are as good as ours need no replacement.

    Where programs cannot be tried, the entries count as unknown, and are to be registered anew.
    """
    look = reconciler.look(instance)
    return reconciler.look(instance) if _vouch(look, reconciler.ledger) else look


def _vouch(look: Look, ledger: Ledger) -> bool:
    """Try the entries that the ledger does not know, and record those that are as good as ours; False if none is."""
    before = len(ledger.records)
    unknown = [
        action.handler
        for action in look.plan.actions
        if action.drift is Drift.STALE_INTERPRETER and action.handler and action.entry not in ledger.records
    ]
    tried = [handler for handler in unknown if handler.architecture is not None]
    if not tried:
        return False
    from binfmtd.kernel.probe import Prober

    try:
        with Prober() as probe:
            for handler in tried:
                architecture, path = handler.architecture or "", handler.registration.interpreter
                entry = look.observed.by_name[handler.name]
                serving = server(look.observed, architecture, without={stand_in_name(handler.name)})
                pinned = look.desired.fingerprints.get(path)
                if serving is not entry or pinned is None:
                    continue
                if probe(architecture, tiny_program(CATALOG[architecture]), path).as_expected:
                    ledger.records[handler.name] = Record(handler.registration, entry.inode, pinned)
    except ProbeError:
        pass
    return len(ledger.records) > before
