"""Backing off from a name whose repairs another process keeps undoing.

After 10 repairs of one name within 10 seconds the daemon backs off from it: it waits 0.1 s between two repairs, and
doubles that up to 30 s.  60 s without a repair end the backoff.  Other names are not slowed.

The instance as a whole (another process keeps flushing it, or switching it off) is a name like any other.  While the
daemon backs off from it, all names wait with it.  Its limit is 600 repairs within 600 seconds: the same rate, but
systemd-binfmt and package managers flush, too, and in bursts.

Pure: the caller passes the time (monotonic, in seconds).
"""

from collections import deque

from binfmtd.model.plan import INSTANCE

REPAIRS = 10
WINDOW = 10.0
REPAIRS_OF_ALL = 600
WINDOW_OF_ALL = 600.0
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 30.0
QUIET = 60.0
_NEVER = float("-inf")


class _History:
    def __init__(self, window: float, repairs: deque[float]) -> None:
        self.window = window
        self.repairs = repairs
        self.pause = 0.0  # seconds from a repair to the next one; 0: no backoff


class Backoff:
    """The last repairs of each name, and the names that the daemon backs off from."""

    def __init__(self) -> None:
        self._histories: dict[str, _History] = {}
        self._contended: set[str] = set()

    def repaired(self, name: str, now: float) -> bool:
        """Count a repair; return True if a backoff begins with it."""
        history = self._histories.setdefault(name, _history_of(name))
        waited = not history.repairs or now >= history.repairs[-1] + history.pause
        history.repairs.append(now)
        if history.pause:
            if waited:  # an earlier repair, as stand-ins make it after a flush, belongs to the same round
                history.pause = min(2 * history.pause, LONGEST_PAUSE)
            return False
        if len(history.repairs) == history.repairs.maxlen and now - history.repairs[0] <= history.window:
            history.pause = FIRST_PAUSE
            self._contended.add(name)
            return True
        return False

    def allowed_at(self, name: str) -> float:
        """Return the time from which the name may be repaired again; minus infinity without a backoff."""
        if not self._contended:
            return _NEVER
        return max(self._allowed_at(name), self._allowed_at(INSTANCE))

    def _allowed_at(self, name: str) -> float:
        history = self._histories.get(name)
        return history.repairs[-1] + history.pause if history and history.pause else _NEVER

    def contended(self) -> frozenset[str]:
        """Return the names that the daemon backs off from."""
        return frozenset(self._contended)

    def end_at(self) -> float:
        """Return when the next backoff may end; infinity if there is none."""
        return min((self._histories[name].repairs[-1] + QUIET for name in self._contended), default=float("inf"))

    def over(self, now: float) -> list[str]:
        """Forget the names without a repair in the last QUIET seconds; return those whose backoff ends."""
        quiet = [name for name, history in self._histories.items() if now >= history.repairs[-1] + QUIET]
        over = [name for name in quiet if self._histories.pop(name).pause]
        self._contended.difference_update(over)
        return over


def _history_of(name: str) -> _History:
    if name == INSTANCE:
        return _History(WINDOW_OF_ALL, deque(maxlen=REPAIRS_OF_ALL))
    return _History(WINDOW, deque(maxlen=REPAIRS))
