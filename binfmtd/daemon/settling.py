"""When a name is quiet: the clock of the two-step repair.

A drift is bridged at once and settled when it is quiet: no event but our own on that name, on ``register`` or on
``status`` for ``settle`` seconds; at the latest one second after the drift, whoever stirs.  Renewed drift does not
restart that second.  Pure: the time (monotonic, in seconds) is handed in.
"""

from collections.abc import Iterable

LONGEST = 1.0  # seconds after the drift, the proper entry is registered all the same


class _Pending:
    def __init__(self, since: float, stirred: float) -> None:
        self.since = since
        self.stirred = stirred
        self.again = float("-inf")


class Settling:
    """Which names wait for quiet.  The empty name stands for the look at everything."""

    def __init__(self, settle: float) -> None:
        self.settle = settle
        self._pending: dict[str, _Pending] = {}
        self._everything_stirred = float("-inf")

    def drifted(self, name: str, now: float) -> None:
        """A drift of this name was seen; nothing changes if it is known already."""
        self._pending.setdefault(name, _Pending(now, now))

    def stirred(self, names: Iterable[str], now: float, *, everything: bool = False) -> None:
        """Somebody else touched these names, or ``register`` or ``status``, which concern every name."""
        for name in names:
            if name in self._pending:
                self._pending[name].stirred = now
        if everything:
            self._everything_stirred = now

    def left(self, name: str, now: float) -> None:
        """Its turn came, and it could not be written: that calls for another pass, but not before ``settle``."""
        found = self._pending[name]
        longest = found.since + LONGEST
        found.again = now + self.settle if now >= longest else min(now + self.settle, longest)

    def ended(self, name: str) -> bool:
        """The name is in order again; False if it was not pending."""
        return self._pending.pop(name, None) is not None

    def since(self, name: str) -> float | None:
        """When the drift was seen; None if the name is not pending."""
        found = self._pending.get(name)
        return None if found is None else found.since

    def pending(self) -> frozenset[str]:
        """The names that wait."""
        return frozenset(self._pending)

    def due_at(self, name: str) -> float:
        """The time from which the name may be settled; for one that is not pending, when everything is quiet."""
        found = self._pending.get(name)
        if found is None:
            return self._everything_stirred + self.settle
        quiet = max(found.stirred, self._everything_stirred) + self.settle
        return min(quiet, found.since + LONGEST)

    def calls_at(self, name: str) -> float:
        """The time from which a pending name calls for a pass."""
        return max(self.due_at(name), self._pending[name].again)

    def forced(self, name: str, now: float) -> bool:
        """Whether the longest wait is over, so that the name is settled however loud it is."""
        found = self._pending.get(name)
        return found is not None and now >= found.since + LONGEST
