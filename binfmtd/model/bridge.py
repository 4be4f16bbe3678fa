"""Which drifts get a stand-in at once, and in which company entries are registered anew.

A stand-in is the newest entry, so it wins.  A handler must not get one while an entry of higher rank that could take
the same file is there and enabled: it would take that entry's files.  When another program registers something newer
that takes a stand-in's files, the stand-in is registered again, on top, under the same condition.
"""

from collections.abc import Callable, Iterable, Sequence

from binfmtd.model.config import Shadowed
from binfmtd.model.desired import DesiredState
from binfmtd.model.drift import Action
from binfmtd.model.entry import Entry
from binfmtd.model.handler import Handler, Registration
from binfmtd.model.ownership import equal, spared
from binfmtd.model.precedence import overlaps
from binfmtd.model.standin import is_stand_in, stand_in_name


def may_stand_in(
    handler: Handler, desired: DesiredState, foreign_above: Iterable[str], present: Callable[[str], bool]
) -> bool:
    """Whether a stand-in for the handler would take only its own files.

    ``foreign_above`` names the foreign entries that the config lets win (under ``shadowed = "report"``);
    ``present`` tells whether an entry of a name is there now.  Of handlers that are missing together, ask for the
    lowest first: the higher one's stand-in then comes to lie above.
    """
    for high in desired.higher.get(handler.name, ()):
        # Extensions and magics could always meet: they never withhold a stand-in from each other.
        kin = overlaps(handler.registration.match, high.registration.match)
        if kin and (present(high.name) or present(stand_in_name(high.name))):
            return False
    return not any(present(name) for name in foreign_above)


def overtaken(handler: Handler, desired: DesiredState, above: Iterable[Entry]) -> bool:
    """Whether one of the entries ``above`` a handler's stand-in takes files that the stand-in should serve."""
    return any(
        entry.enabled
        and entry.registration is not None
        and handler in desired.overlapping(entry.registration.match)
        and not _may_lie_above(entry, entry.registration, handler, desired)
        for entry in above
    )


def _may_lie_above(entry: Entry, said: Registration, handler: Handler, desired: DesiredState) -> bool:
    """Whether it serves the same, or belongs there: a handler of higher rank, or foreign where the config lets it."""
    if is_stand_in(entry.name) or entry.name in desired.held_by_name or equal(said, handler.registration):
        return True
    if entry.name in desired.by_name:
        higher = {high.name: high.registration for high in desired.higher.get(handler.name, ())}
        return entry.name in higher and equal(said, higher[entry.name])
    return desired.policy.shadowed is Shadowed.REPORT and spared(entry, desired)


def companies(writes: Sequence[Action], desired: DesiredState) -> list[list[Action]]:
    """Split registrations into the smallest groups whose order among each other matters; each lowest rank first.

    A group is written back to back; most have one member.
    """
    leader = {action.entry: action.entry for action in writes}

    def find(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    for action in writes:
        for high in desired.higher.get(action.entry, ()):
            if high.name in leader:
                leader[find(high.name)] = find(action.entry)
    groups: dict[str, list[Action]] = {}
    for action in writes:
        groups.setdefault(find(action.entry), []).append(action)
    return list(groups.values())
