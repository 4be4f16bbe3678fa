"""Quiet names: the clock of the two-step repair.

A stand-in bridges a drift at once.  The proper entry is written when the name is quiet: for ``settle`` seconds no other
program has raised an event on that name, on ``register`` or on ``status``.  It is written one second after the drift at
the latest, whatever other programs do; a renewed drift does not restart that second.

Example, with ``settle`` = 0.1: after a drift at 0 s and another event at 0.05 s the entry is written at 0.15 s.

Pure: the time (monotonic, in seconds) is an argument.
"""

from collections.abc import Iterable

LONGEST = 1.0  # seconds after the drift: then the proper entry is registered even if its name is not quiet


class _Pending:
    def __init__(self, since: float, record_touch: float) -> None:
        self.since = since
        self.record_touch = record_touch
        self.again = float("-inf")


class Settling:
    """The names that wait for quiet.  The empty name stands for the look at everything."""

    def __init__(self, settle: float) -> None:
        self.settle = settle
        self._pending: dict[str, _Pending] = {}
        self._everything_stirred = float("-inf")

    def drifted(self, name: str, now: float) -> None:
        """Record a drift of this name; nothing changes if one is known already."""
        self._pending.setdefault(name, _Pending(now, now))

    def record_touch(self, names: Iterable[str], now: float, *, everything: bool = False) -> None:
        """Record that another program touched these names.

        ``everything``: it touched ``register`` or ``status``, which concern every name.
        """
        for name in names:
            if name in self._pending:
                self._pending[name].record_touch = now
        if everything:
            self._everything_stirred = now

    def left(self, name: str, now: float) -> None:
        """Record that the name was due, but could not be written: it calls for another pass.

        That comes ``settle`` seconds from now, or earlier, when the second since the drift is over.
        """
        found = self._pending[name]
        longest = found.since + LONGEST
        found.again = now + self.settle if now >= longest else min(now + self.settle, longest)

    def ended(self, name: str) -> bool:
        """Record that the name is in order again; return False if it was not pending."""
        return self._pending.pop(name, None) is not None

    def since(self, name: str) -> float | None:
        """Return when the drift was recorded; None if the name is not pending."""
        found = self._pending.get(name)
        return None if found is None else found.since

    def pending(self) -> frozenset[str]:
        """Return the names that wait."""
        return frozenset(self._pending)

    def due_at(self, name: str) -> float:
        """Return the time from which the name may be written; for a name that is not pending, when all is quiet."""
        found = self._pending.get(name)
        if found is None:
            return self._everything_stirred + self.settle
        quiet = max(found.record_touch, self._everything_stirred) + self.settle
        return min(quiet, found.since + LONGEST)

    def calls_at(self, name: str) -> float:
        """Return the time from which a pending name calls for a pass."""
        return max(self.due_at(name), self._pending[name].again)

    def forced(self, name: str, now: float) -> bool:
        """Return True if the second since the drift is over: the name is then written even if it is not quiet."""
        found = self._pending.get(name)
        return found is not None and now >= found.since + LONGEST
