"""Precedence: the kernel tries the newest entry first, so rank is the order of registration.

Of two handlers that could take the same file, the one with the higher priority must be the newer entry.  With equal
priorities, it is the one that is declared later.  Example: ``elf`` (priority 0) takes all ELF files and ``qemu-arm``
(priority 10) some of them, so ``elf`` is registered first.

A file could always have both the bytes of a magic and the name of an extension.  So a magic and an extension are ranked
against each other only if their priorities differ.
"""

from collections.abc import Collection, Mapping

from binfmtd.model.handler import Handler
from binfmtd.model.match import Magic, Match, overlap


def overlaps(a: Match, b: Match) -> bool:
    """Return True if there can be a file that both take, and both are magics or both are extensions."""
    return isinstance(a, Magic) == isinstance(b, Magic) and overlap(a, b)


def order_matters(low: Handler, high: Handler) -> bool:
    """Return True if the order of these two matters.  ``high`` is the one of higher rank."""
    a, b = low.registration.match, high.registration.match
    return overlap(a, b) if low.priority != high.priority else overlaps(a, b)


def inversions(
    handlers: Collection[Handler],
    higher: Mapping[str, tuple[Handler, ...]],
    position: Mapping[str, int],
    newest: Mapping[str, int],
) -> frozenset[str]:
    """Return the handlers whose entry is below one of lower rank.

    ``position`` is the kernel's order (the lower position wins).  ``newest`` is the position of the newer of a
    handler's proper entry and its stand-in.
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
    """Return the handlers that have to be registered again, beyond ``rewritten``, so that all are in order of rank.

    ``position`` and ``newest`` are as in ``inversions``.  ``rewritten`` are registered again anyway, and so move to
    the top in order of rank.  ``shadowed`` have a foreign entry above them that must not be there.  ``stuck`` cannot
    move.

    The result is the smallest such set.  Of a pair in the wrong order, only the higher one can correct the order by a
    move.  When a handler moves to the top, those that must stay above it move, too.
    """
    moved = {*rewritten, *shadowed, *inversions(handlers, higher, position, newest)}.difference(stuck)
    pending = list(moved)
    while pending:
        for high in higher.get(pending.pop(), ()):
            if high.name in position and high.name not in moved:
                moved.add(high.name)
                pending.append(high.name)
    return frozenset(moved - set(rewritten))
