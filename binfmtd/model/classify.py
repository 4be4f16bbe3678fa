"""The kind of drift of one handler's proper entry: one rule for the plan and for the fast repair.

Example: an entry with another interpreter that is also disabled has CHANGED, since one replacement ends both.
"""

from binfmtd.model.difference import difference
from binfmtd.model.drift import Drift
from binfmtd.model.entry import Entry
from binfmtd.model.handler import Flags, Handler
from binfmtd.model.ownership import equal


def classify_drift(handler: Handler, entry: Entry | None, stale: str | None) -> tuple[Drift, str] | None:
    """Return how the entry differs from its handler, and that in words; None if it does not.

    ``stale``: why the kernel may have opened another file for flag F than the one at the interpreter's path.
    """
    if not handler.enabled:
        is_enabled = entry is not None and entry.enabled
        return (Drift.CHANGED, "it is enabled, but the config has enabled = false") if is_enabled else None
    if entry is None:
        return Drift.MISSING, "the entry is missing"
    if not equal(entry.registration, handler.registration):
        return Drift.CHANGED, difference(entry.registration, handler.registration)
    if stale is not None and Flags.F in handler.registration.flags:
        return Drift.STALE_INTERPRETER, stale
    return None if entry.enabled else (Drift.DISABLED, "it is disabled")


def one_write_ends(drift: Drift, handler: Handler) -> bool:
    """Return True if enabling or disabling the entry ends this drift, so that no stand-in is needed."""
    return drift is Drift.DISABLED or (drift is Drift.CHANGED and not handler.enabled)
