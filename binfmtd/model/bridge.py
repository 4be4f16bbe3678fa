"""Decide which drifts get a stand-in at once, and which entries have to be registered together.

A stand-in is the newest entry, so it wins.  A handler must not get one while an enabled entry of higher rank exists
that could take the same file: the stand-in would take that entry's files.  Another program may register a newer entry
that takes a stand-in's files.  The stand-in is then registered again, on top, under the same condition.

Example: handler ``elf`` takes all ELF files, and handler ``qemu-arm``, of higher rank, takes some of them.  While
``qemu-arm`` is registered, ``elf`` gets no stand-in.
"""

from collections.abc import Callable, Iterable, Sequence

from binfmtd.model.config import Shadowed
from binfmtd.model.desired import DesiredState
from binfmtd.model.drift import Action
from binfmtd.model.entry import Entry
from binfmtd.model.handler import Handler, Registration
from binfmtd.model.ownership import equal, is_kept
from binfmtd.model.precedence import overlaps
from binfmtd.model.stand_in import is_stand_in, stand_in_name


def may_stand_in(
    handler: Handler, desired: DesiredState, foreign_above: Iterable[str], present: Callable[[str], bool]
) -> bool:
    """Return True if a stand-in for the handler would take only the handler's own files.

    ``foreign_above``: the names of the foreign entries that the config lets win (under ``shadowed = "report"``).
    ``present`` returns True if an enabled entry of that name exists now.  If several handlers are missing, call this
    for the lowest rank first: the higher handler's stand-in is then registered later, and lies above.
    """
    for high in desired.higher.get(handler.name, ()):
        # A file could always match both a magic and an extension: so these never prevent each other's stand-in.
        kin = overlaps(handler.registration.match, high.registration.match)
        if kin and (present(high.name) or present(stand_in_name(high.name))):
            return False
    return not any(present(name) for name in foreign_above)


def overtaken(handler: Handler, desired: DesiredState, above: Iterable[Entry]) -> bool:
    """Return True if one of the entries ``above`` a handler's stand-in takes files that the stand-in should serve."""
    return any(
        entry.enabled
        and entry.registration is not None
        and handler in desired.overlapping(entry.registration.match)
        and not _may_lie_above(entry, entry.registration, handler, desired)
        for entry in above
    )


def _may_lie_above(entry: Entry, registration: Registration, handler: Handler, desired: DesiredState) -> bool:
    """Return True if ``entry`` may stay above the handler's stand-in.

    It may if it

    * is a stand-in, or equals the handler;
    * has the name of a handler that is not registered now;
    * is the entry of a handler of higher rank, as declared;
    * is foreign, and the config lets foreign entries win.
    """
    if (
        is_stand_in(entry.name)
        or entry.name in desired.unavailable_by_name
        or equal(registration, handler.registration)
    ):
        return True
    if entry.name in desired.by_name:
        higher = {high.name: high.registration for high in desired.higher.get(handler.name, ())}
        return entry.name in higher and equal(registration, higher[entry.name])
    return desired.policy.shadowed is Shadowed.REPORT and is_kept(entry, desired)


def ordering_groups(writes: Sequence[Action], desired: DesiredState) -> list[list[Action]]:
    """Split registrations into the smallest groups within which the order matters; each group is lowest rank first.

    The members of a group are written back to back; most groups have one member.  ``writes`` is lowest rank first.
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
