"""Decide if an entry is binfmtd's own, or foreign.

Its own are entries that have the name of a declared handler, or that binfmtd registered according to the ledger.
All other entries, except stand-ins, are foreign.
"""

from fnmatch import fnmatchcase

from binfmtd.model.config import Unmanaged
from binfmtd.model.desired import DesiredState, UnavailableReason
from binfmtd.model.drift import PlanContext, Record
from binfmtd.model.entry import Entry, ObservedState
from binfmtd.model.handler import Handler, Registration
from binfmtd.model.match import same, takes_plain
from binfmtd.model.stand_in import is_stand_in, stand_in_name


def equal(registration: Registration | None, wanted: Registration) -> bool:
    """Return True if an entry does what is wanted.  Compares values, since the text can be written in several ways."""
    return (
        registration is not None
        and registration.interpreter == wanted.interpreter
        and registration.flags == wanted.flags
        and same(registration.match, wanted.match)
    )


def stand_in_serves(handler: Handler, observed: ObservedState) -> bool:
    """Return True if the handler's stand-in is registered and enabled, and as the handler is declared."""
    entry = observed.by_name.get(stand_in_name(handler.name))
    return entry is not None and entry.enabled and equal(entry.registration, handler.registration)


def registered_by_us(entry: Entry, record: Record | None) -> bool:
    """Return True if the record is about this entry, not about an earlier one of the same name."""
    if record is None:
        return False
    if record.inode is None:  # the daemon was killed after the intent, before or after it registered the entry
        return equal(entry.registration, record.registration)
    return record.inode == entry.inode


def foreign(entry: Entry, desired: DesiredState, context: PlanContext) -> bool:
    """Return True if the entry is foreign.

    The name of a handler from "all" without an interpreter (ABSENT, LOST) does not make an entry binfmtd's own, since
    no administrator asked for that handler by name.
    """
    if is_stand_in(entry.name) or entry.name in desired.by_name:
        return False
    unavailable = desired.unavailable_by_name.get(entry.name)
    if unavailable is not None and unavailable.cause not in (UnavailableReason.ABSENT, UnavailableReason.LOST):
        return False
    return not registered_by_us(entry, context.records.get(entry.name))


def is_kept(entry: Entry, desired: DesiredState) -> bool:
    """Return True if a foreign entry stays: by ``unmanaged``, or since its name is in ``keep`` or ``restore``."""
    policy = desired.policy
    return policy.unmanaged is Unmanaged.KEEP or any(
        fnmatchcase(entry.name, glob) for glob in (*policy.keep, *policy.restore)
    )


def overlapping_foreign(desired: DesiredState, observed: ObservedState, context: PlanContext) -> dict[str, list[Entry]]:
    """Return, by handler name, the enabled foreign entries that take some of the handler's files, newest first.

    An entry that the plan removes or disables is left out.
    """
    entries: dict[str, list[Entry]] = {}
    for entry in observed.relevant:
        if not entry.enabled or entry.registration is None or not foreign(entry, desired, context):
            continue
        if entry.name in context.exec_breaking or not is_kept(entry, desired):
            continue
        for handler in desired.overlapping(entry.registration.match):
            entries.setdefault(handler.name, []).append(entry)
    return entries


def provider(handler: Handler, candidates: list[Entry], context: PlanContext) -> Entry | None:
    """Return the foreign entry that serves the handler's files in its place, or None.

    It is the first of ``candidates`` that takes the handler's plainest file, if its interpreter can be executed.
    """
    for entry in candidates:
        if entry.registration is not None and takes_plain(entry.registration.match, handler.registration.match):
            return None if entry.name in context.broken else entry
    return None
