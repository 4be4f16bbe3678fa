"""Backing off from one name whose repairs another process keeps undoing.

After 10 repairs of the name within 10 seconds the daemon backs off from it: it waits 0.1 s between two repairs, and
doubles that up to 30 s.  60 s without a repair end the backoff.  Other names are not slowed.

The instance as a whole (another process keeps flushing it, or switching it off) is a name like any other.  While the
daemon backs off from it, all names wait with it (``StateTable.allowed_at``).  Its limit is 600 repairs within 600
seconds: the same rate, but systemd-binfmt and package managers flush, too, and in bursts.

Pure: the caller passes the time (monotonic, in seconds).
"""

from collections import deque

REPAIRS = 10
WINDOW = 10.0
REPAIRS_OF_ALL = 600
WINDOW_OF_ALL = 600.0
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 30.0
QUIET = 60.0
_NEVER = float("-inf")


class Backoff:
    """The last repairs of one name."""

    __slots__ = ("_pause", "_repairs", "_window")

    def __init__(self, *, of_all: bool = False) -> None:
        """Begin without a repair; ``of_all``: with the limits of the instance as a whole."""
        self._window = WINDOW_OF_ALL if of_all else WINDOW
        self._repairs: deque[float] = deque(maxlen=REPAIRS_OF_ALL if of_all else REPAIRS)
        self._pause = 0.0  # seconds from a repair to the next one; 0: no backoff

    def count_repair(self, now: float) -> bool:
        """Count a repair; return True if a backoff begins with it."""
        repairs = self._repairs
        waited = not repairs or now >= repairs[-1] + self._pause
        repairs.append(now)
        if self._pause:
            if waited:  # an earlier repair, as stand-ins make it after a flush, belongs to the same round
                self._pause = min(2 * self._pause, LONGEST_PAUSE)
            return False
        if len(repairs) == repairs.maxlen and now - repairs[0] <= self._window:
            self._pause = FIRST_PAUSE
            return True
        return False

    def allowed_at(self) -> float:
        """Return the time from which the name may be repaired again; minus infinity without a backoff."""
        return self._repairs[-1] + self._pause if self._pause else _NEVER

    def quiet_at(self) -> float:
        """Return when the name has had no repair for QUIET seconds: its history is void then."""
        return self._repairs[-1] + QUIET if self._repairs else _NEVER
