"""Whose entry it is.

Owned: a handler of the desired state has its name, or the ledger says that binfmtd registered this very entry.
Foreign: everything else but stand-ins.
"""

from fnmatch import fnmatchcase

from binfmtd.model.config import Unmanaged
from binfmtd.model.desired import DesiredState, Standing
from binfmtd.model.drift import Record, Surroundings
from binfmtd.model.entry import Entry, ObservedState
from binfmtd.model.handler import Handler, Registration
from binfmtd.model.match import same, takes_plain
from binfmtd.model.standin import is_stand_in


def equal(registration: Registration | None, wanted: Registration) -> bool:
    """Whether an entry does what is wanted, by value: the text may be written in several ways."""
    return (
        registration is not None
        and registration.interpreter == wanted.interpreter
        and registration.flags == wanted.flags
        and same(registration.match, wanted.match)
    )


def registered_by_us(entry: Entry, record: Record | None) -> bool:
    """Whether the record is about this very entry, not about an earlier one of the same name."""
    if record is None:
        return False
    if record.inode is None:  # killed between the intent and the deed, or between the deed and its record
        return equal(entry.registration, record.registration)
    return record.inode == entry.inode


def foreign(entry: Entry, desired: DesiredState, surroundings: Surroundings) -> bool:
    """Whether the entry belongs to somebody else."""
    if is_stand_in(entry.name) or entry.name in desired.by_name:
        return False
    held = desired.held_by_name.get(entry.name)
    if held is not None and held.standing not in (Standing.ABSENT, Standing.LOST):
        return False
    return not registered_by_us(entry, surroundings.records.get(entry.name))


def spared(entry: Entry, desired: DesiredState) -> bool:
    """Whether a foreign entry stays under the config's ``unmanaged``; what it keeps or restores does."""
    policy = desired.policy
    return policy.unmanaged is Unmanaged.KEEP or any(
        fnmatchcase(entry.name, glob) for glob in (*policy.keep, *policy.restore)
    )


def rivals(desired: DesiredState, observed: ObservedState, surroundings: Surroundings) -> dict[str, list[Entry]]:
    """Handler -> the enabled foreign entries that take some of the same files, newest first.

    One that the plan takes away is nobody's rival.
    """
    found: dict[str, list[Entry]] = {}
    for entry in observed.entries:
        if not entry.enabled or entry.registration is None or not foreign(entry, desired, surroundings):
            continue
        if entry.name in surroundings.bricking or not spared(entry, desired):
            continue
        for handler in desired.overlapping(entry.registration.match):
            found.setdefault(handler.name, []).append(entry)
    return found


def provider(handler: Handler, candidates: list[Entry], surroundings: Surroundings) -> Entry | None:
    """Of a handler's rivals, the one that serves its files in its place: it would take them, and it works."""
    for entry in candidates:
        if entry.registration is not None and takes_plain(entry.registration.match, handler.registration.match):
            return None if entry.name in surroundings.broken else entry
    return None
