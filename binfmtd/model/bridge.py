"""Which drifts get a stand-in at once, and in which company entries are registered anew.

A stand-in is the newest entry, so it wins.  A handler must not get one while an entry of higher rank that could take
the same file is there and enabled: it would take that entry's files.
"""

from collections.abc import Callable, Iterable, Sequence

from binfmtd.model.desired import DesiredState
from binfmtd.model.drift import Action
from binfmtd.model.handler import Handler
from binfmtd.model.precedence import overlaps
from binfmtd.model.standin import stand_in_name


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
