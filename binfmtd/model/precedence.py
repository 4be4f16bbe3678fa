"""Who wins: the kernel asks the newest entry first, so rank is the order of registration.

Of two handlers that could take the same file, the one with the higher priority must be the newer entry; of equals, the
later declared.  A file could always carry the bytes of a magic and the name of an extension, so these two are ranked
against each other only where their priorities differ.
"""

from collections.abc import Collection, Mapping

from binfmtd.model.handler import Handler
from binfmtd.model.match import Magic, Match, overlap


def overlaps(a: Match, b: Match) -> bool:
    """Whether a file exists that both take and that anybody would call the same kind: magic and extension never are."""
    return isinstance(a, Magic) == isinstance(b, Magic) and overlap(a, b)


def contends(low: Handler, high: Handler) -> bool:
    """Whether the order of these two matters; ``high`` is the one of higher rank."""
    a, b = low.registration.match, high.registration.match
    return overlap(a, b) if low.priority != high.priority else overlaps(a, b)


def turned_round(
    handlers: Collection[Handler],
    higher: Mapping[str, tuple[Handler, ...]],
    position: Mapping[str, int],
    newest: Mapping[str, int],
) -> frozenset[str]:
    """Which handlers stand below one of lower rank; ``position`` is the kernel's order (lower wins).

    ``newest``: the place of the newer of a handler's proper entry and its stand-in.
    """
    return frozenset(
        high.name
        for low in handlers
        for high in higher.get(low.name, ())
        if low.name in newest and high.name in position and newest[low.name] < position[high.name]
    )


def out_of_order(
    handlers: Collection[Handler],
    higher: Mapping[str, tuple[Handler, ...]],
    position: Mapping[str, int],
    newest: Mapping[str, int],
    rewritten: Collection[str],
    shadowed: Collection[str],
    stuck: Collection[str] = (),
) -> frozenset[str]:
    """Which handlers have to be registered again, beyond ``rewritten``, so that all stand in order of rank.

    ``position`` and ``newest`` as in ``turned_round``.  ``rewritten`` are registered again anyhow and so move to the
    top in order of rank, and ``shadowed`` have a foreign entry above them that must not be there.  The result is the
    smallest such set: of a pair in the wrong order only the higher can mend it, and one that moves to the top drags
    along those that must stay above it.  Those that are ``stuck`` cannot move.
    """
    moved = {*rewritten, *shadowed, *turned_round(handlers, higher, position, newest)}.difference(stuck)
    pending = list(moved)
    while pending:
        for high in higher.get(pending.pop(), ()):
            if high.name in position and high.name not in moved:
                moved.add(high.name)
                pending.append(high.name)
    return frozenset(moved - set(rewritten))
