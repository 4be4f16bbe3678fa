"""The debounce of one open drift: its proper entry is written when the entry's name is quiet.

A stand-in serves at once.  The proper entry is written when for ``settle`` seconds no other program has raised an event
on the name, on ``register`` or on ``status``.  It is written one second after the drift at the latest, whatever other
programs do; a renewed drift does not restart that second.

Example, with ``settle`` = 0.1: after a drift at 0 s and another event at 0.05 s the entry is written at 0.15 s.

Pure: the time (monotonic, in seconds) is an argument.
"""

LONGEST = 1.0  # seconds after the drift: then the proper entry is registered even if its name is not quiet


class Debounce:
    """The times of one drift, in seconds: when it began, was last touched, and may next call for a pass."""

    __slots__ = ("_not_before", "_touched_at", "since")

    def __init__(self, now: float) -> None:
        self.since = now
        self._touched_at = now
        self._not_before = float("-inf")

    def touched(self, now: float) -> None:
        """Record that another program touched the name."""
        self._touched_at = now

    def deferred(self, now: float, settle: float) -> None:
        """Record that the name was due, but could not be written: it calls for another pass.

        That comes ``settle`` seconds from now, or earlier, when the second since the drift is over.
        """
        longest = self.since + LONGEST
        self._not_before = now + settle if now >= longest else min(now + settle, longest)

    def due_at(self, settle: float, all_touched_at: float) -> float:
        """Return the time from which the name may be written; all names were touched at ``all_touched_at``."""
        return min(max(self._touched_at, all_touched_at) + settle, self.since + LONGEST)

    def calls_at(self, settle: float, all_touched_at: float, unread_until: float = float("-inf")) -> float:
        """Return the time from which the name calls for a pass.

        Until ``unread_until`` no events are read, so no name is known to be quiet: only one whose second is over calls.
        """
        quiet_at = max(self.due_at(settle, all_touched_at), unread_until)
        return max(min(quiet_at, self.since + LONGEST), self._not_before)

    def is_over(self, now: float) -> bool:
        """Return True if the second since the drift is over: the name is then written even if it is not quiet."""
        return now >= self.since + LONGEST
