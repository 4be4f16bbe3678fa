"""A trial of entries that are not in the ledger: only running a program shows which emulator they run.

With F an entry runs the file that the kernel opened, whatever is at its path now.  A new container has no ledger of
what an earlier one registered, so it would replace all of its entries.  Therefore entries that look as wanted are
tried: one that runs the emulator that would be registered is recorded in the ledger, and stays.
"""

from collections.abc import Collection

from binfmtd.catalog.architectures import CATALOG
from binfmtd.catalog.program import tiny_program
from binfmtd.daemon.assessment import Assessment
from binfmtd.daemon.entries.reconciler import Reconciler
from binfmtd.daemon.state_files.ledger import Ledger
from binfmtd.errors import ProbeError
from binfmtd.kernel.instance import Instance
from binfmtd.model.drift import Drift, Record
from binfmtd.model.entry import Entry, ObservedState
from binfmtd.model.match import takes
from binfmtd.model.stand_in import stand_in_name


def server(observed: ObservedState, architecture: str, without: Collection[str] = ()) -> Entry | None:
    """Return the enabled entry that takes an architecture's programs, judged by its registration; else None."""
    program = tiny_program(CATALOG[architecture])
    for entry in observed.entries:
        registration = entry.registration
        if entry.enabled and entry.name not in without and registration and takes(registration.match, program):
            return entry
    return None


def look_and_try(reconciler: Reconciler, instance: Instance) -> Assessment:
    """Look; try the entries that are not in the ledger; look again if some of them need no replacement.

    Where programs cannot be tried, these entries count as unknown, and the plan registers them again.
    """
    assessment = reconciler.assess(instance)
    return reconciler.assess(instance) if _adopt_working_entries(assessment, reconciler.ledger) else assessment


def _adopt_working_entries(assessment: Assessment, ledger: Ledger) -> bool:
    """Try the entries that are not in the ledger, and record those that are as good as ours; False if none is."""
    before = len(ledger.records)
    unknown = [
        action.handler
        for action in assessment.plan.actions
        if action.drift is Drift.STALE_INTERPRETER and action.handler and action.entry not in ledger.records
    ]
    tried = [handler for handler in unknown if handler.architecture is not None]
    if not tried:
        return False
    from binfmtd.host.probe import Prober

    try:
        with Prober() as probe:
            for handler in tried:
                architecture, path = handler.architecture or "", handler.registration.interpreter
                entry = assessment.observed.by_name[handler.name]
                serving = server(assessment.observed, architecture, without={stand_in_name(handler.name)})
                opened_file = assessment.desired.file_identities.get(path)
                if serving is not entry or opened_file is None:
                    continue
                if probe(architecture, tiny_program(CATALOG[architecture]), path).as_expected:
                    ledger.records[handler.name] = Record(handler.registration, entry.inode, opened_file)
    except ProbeError:
        pass
    return len(ledger.records) > before
