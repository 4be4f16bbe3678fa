"""Restore foreign entries that the config's ``restore`` names, as they were, after a flush.

* Each pass remembers the entries that exist, and if each wins over declared handlers that share a file with it.
* If no entry of the previous pass exists any more, a flush (or the end of the whole instance) removed those that are
  gone: they are lost.  Inode numbers show that, since the kernel never uses one twice.  If any entry still exists,
  another program removed the missing one alone, and it is forgotten.
* A lost entry stays lost until it exists again, or until the config declares its name.

Example: a distribution registers ``WSLInterop``, and a container flushes binfmt_misc.  The next pass finds
``WSLInterop`` lost, and registers it again.
"""

from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from fnmatch import fnmatchcase

from binfmtd.model.config import Policy, Shadowed
from binfmtd.model.desired import DesiredState
from binfmtd.model.drift import PlanContext, Remembered
from binfmtd.model.entry import Entry, ObservedState
from binfmtd.model.handler import Handler, Registration
from binfmtd.model.match import Match, overlap
from binfmtd.model.ownership import equal, foreign


def to_be_remembered(name: str, policy: Policy) -> bool:
    """Return True if the config's ``restore`` names the entry."""
    return any(fnmatchcase(name, glob) for glob in policy.restore)


def remember(
    known: Mapping[str, Remembered],
    observed: ObservedState,
    desired: DesiredState,
    context: PlanContext,
    before: Collection[int],
) -> dict[str, Remembered]:
    """Return the entries to remember after a pass has observed the instance, oldest first.

    ``before`` contains the inode numbers of the entries at the previous pass.
    """
    flushed = bool(known) and not any(entry.inode in before for entry in observed.entries)
    entries = {
        name: remembered._replace(lost=True)
        for name, remembered in known.items()
        if (remembered.lost or flushed) and name not in observed.by_name and to_be_remembered(name, desired.policy)
        # The plan registers a declared handler itself.
        if name not in desired.by_name and name not in desired.unavailable_by_name
    }
    for entry in reversed(observed.relevant):
        registration = entry.registration
        if (
            registration is None
            or entry.name in context.exec_breaking
            or not to_be_remembered(entry.name, desired.policy)
        ):
            continue
        if foreign(entry, desired, context):
            above = _stands_above(entry, registration, observed, desired)
            remembered = known.get(entry.name)
            if remembered is not None and remembered.inode == entry.inode:
                above &= remembered.above  # of the two only the handler's entry is ever moved, and only upwards
            elif remembered is not None and remembered.lost and equal(registration, remembered.registration):
                above = remembered.above
            entries[entry.name] = Remembered(registration, entry.enabled, entry.inode, above)
    return entries


def _stands_above(entry: Entry, registration: Registration, observed: ObservedState, desired: DesiredState) -> bool:
    place = observed.position[entry.name]
    return any(place < observed.position.get(ours.name, -1) for ours in desired.overlapping(registration.match))


def restorable(desired: DesiredState, context: PlanContext, written: AbstractSet[str]) -> list[Handler]:
    """Return the lost entries to register again now, oldest first.

    ``written`` are the names of the declared handlers that this plan registers.  An entry that belongs above one of
    them waits until that is registered, unless the kernel refuses it.  A later entry that shares a file with a waiting
    one waits, too, since the newest wins.  Under ``shadowed = "outrank"`` no entry waits.
    """
    # Handlers that this plan registers after the restored entries: those it writes, and those it moves above one.
    to_come = set(written - context.refused)

    def waits(remembered: Remembered) -> bool:
        above = remembered.above and desired.policy.shadowed is Shadowed.REPORT
        return above and any(ours.name in to_come for ours in desired.overlapping(remembered.registration.match))

    now, waiting = list[Handler](), list[Match]()
    for name, remembered in context.remembered.items():
        match = remembered.registration.match
        if not remembered.lost:
            continue
        if waits(remembered) or any(overlap(match, other) for other in waiting):
            waiting.append(match)
        else:
            now.append(Handler(name, remembered.registration, enabled=remembered.enabled))
            if remembered.enabled and not remembered.above and name not in context.refused:
                to_come.update(ours.name for ours in desired.overlapping(match))
    return now


def misplaced(entry: Entry, context: PlanContext) -> bool:
    """Return True if a foreign entry came back above a handler that it was below before."""
    remembered = context.remembered.get(entry.name)
    return remembered is not None and remembered.inode == entry.inode and not remembered.above
