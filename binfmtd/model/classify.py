"""The kind of drift of one handler's proper entry: one rule for the plan and for the fast repair.

Example: an entry with another interpreter that is also disabled has CHANGED, since one replacement ends both.
"""

from binfmtd.model.drift import Drift
from binfmtd.model.entry import Entry
from binfmtd.model.handler import Flags, Handler
from binfmtd.model.ownership import equal


def classify_drift(handler: Handler, entry: Entry | None, *, stale: bool) -> Drift | None:
    """Return how the entry differs from its handler; None if it does not.

    ``stale``: if it has flag F, the kernel may have opened another file than the one at the interpreter's path.
    """
    if not handler.enabled:
        return Drift.CHANGED if entry is not None and entry.enabled else None
    if entry is None:
        return Drift.MISSING
    if not equal(entry.registration, handler.registration):
        return Drift.CHANGED
    if stale and Flags.F in handler.registration.flags:
        return Drift.STALE_INTERPRETER
    return None if entry.enabled else Drift.DISABLED


def one_write_ends(drift: Drift, handler: Handler) -> bool:
    """Return True if enabling or disabling the entry ends this drift, so that no stand-in is needed."""
    return drift is Drift.DISABLED or (drift is Drift.CHANGED and not handler.enabled)
