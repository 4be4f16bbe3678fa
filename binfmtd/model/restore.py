"""Foreign entries that the config's ``restore`` names: as they were, for when somebody flushes everything.

* Remembered is what stands, and whether it wins over those of ours that share a file with it.
* An entry that is gone went with a flush (or with the whole instance) if nothing that stood beside it stands any more:
  no number is ever used twice.  If anything does, somebody removed this one, and it is forgotten.
* What is lost stays lost until it stands again, or somebody declares its name.
"""

from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from fnmatch import fnmatchcase

from binfmtd.model.config import Policy, Shadowed
from binfmtd.model.desired import DesiredState
from binfmtd.model.drift import Remembered, Surroundings
from binfmtd.model.entry import Entry, ObservedState
from binfmtd.model.handler import Handler, Registration
from binfmtd.model.match import Match, overlap
from binfmtd.model.ownership import equal, foreign


def to_be_remembered(name: str, policy: Policy) -> bool:
    """Whether the config's ``restore`` names it."""
    return any(fnmatchcase(name, glob) for glob in policy.restore)


def remember(
    known: Mapping[str, Remembered],
    observed: ObservedState,
    desired: DesiredState,
    surroundings: Surroundings,
    before: Collection[int],
) -> dict[str, Remembered]:
    """What to know after a look, oldest first; ``before`` are the numbers of the entries at the look before."""
    flushed = not any(entry.inode in before for entry in observed.entries)
    found = {
        name: was._replace(lost=True)
        for name, was in known.items()
        if (was.lost or flushed) and name not in observed.by_name and to_be_remembered(name, desired.policy)
        # What is declared now is ours to register.
        if name not in desired.by_name and name not in desired.held_by_name
    }
    for entry in reversed(observed.entries):
        says = entry.registration
        if says is None or entry.name in surroundings.bricking or not to_be_remembered(entry.name, desired.policy):
            continue
        if foreign(entry, desired, surroundings):
            above = _stands_above(entry, says, observed, desired)
            was = known.get(entry.name)
            if was is not None and was.inode == entry.inode:
                above &= was.above  # of these two only ours is ever moved, and that is upwards
            elif was is not None and was.lost and equal(says, was.registration):
                above = was.above
            found[entry.name] = Remembered(says, entry.enabled, entry.inode, above)
    return found


def _stands_above(entry: Entry, says: Registration, observed: ObservedState, desired: DesiredState) -> bool:
    place = observed.position[entry.name]
    return any(place < observed.position.get(ours.name, -1) for ours in desired.overlapping(says.match))


def restorable(desired: DesiredState, surroundings: Surroundings, written: AbstractSet[str]) -> list[Handler]:
    """What to register again now, oldest first; ``written`` are the handlers of ours that this plan registers.

    One that belongs above a handler waits until that stands, unless the kernel refuses it, and what came after it and
    shares a file with it waits, too: the newest wins.  Under ``shadowed = "outrank"`` none does.
    """
    # Handlers that this plan registers after it restores an entry: those it writes, and those it moves above another.
    to_come = set(written - surroundings.refused)

    def waits(was: Remembered) -> bool:
        above = was.above and desired.policy.shadowed is Shadowed.REPORT
        return above and any(ours.name in to_come for ours in desired.overlapping(was.registration.match))

    now, waiting = list[Handler](), list[Match]()
    for name, was in surroundings.remembered.items():
        match = was.registration.match
        if not was.lost:
            continue
        if waits(was) or any(overlap(match, each) for each in waiting):
            waiting.append(match)
        else:
            now.append(Handler(name, was.registration, enabled=was.enabled))
            if was.enabled and not was.above and name not in surroundings.refused:
                to_come.update(ours.name for ours in desired.overlapping(match))
    return now


def misplaced(entry: Entry, surroundings: Surroundings) -> bool:
    """Whether a foreign entry came back above a handler that it used to stand below."""
    was = surroundings.remembered.get(entry.name)
    return was is not None and was.inode == entry.inode and not was.above
