"""Somebody keeps undoing what we repair: back off, instead of fighting at full speed.

After 10 repairs of one name in 10 seconds its repairs are spaced out: 0.1 s doubling to 30 s; 60 s without a repair end
it.  Other names are not slowed.

The instance as a whole (somebody flushes everything, or switches it off) is a name like any other, and what is undone
with it waits with it.  Here 600 repairs in 600 seconds are allowed: the same rate, but systemd-binfmt and package
managers flush, too, and in bursts.

Pure: the time (monotonic, in seconds) is handed in.
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
        self.pause = 0.0  # 0: not contended


class Contention:
    """The repairs of each name, and who is contended."""

    def __init__(self) -> None:
        self._histories: dict[str, _History] = {}
        self._contended: set[str] = set()

    def repaired(self, name: str, now: float) -> bool:
        """Count a repair; True if this one begins a contention."""
        history = self._histories.setdefault(name, _history_of(name))
        waited = not history.repairs or now >= history.repairs[-1] + history.pause
        history.repairs.append(now)
        if history.pause:
            if waited:  # what comes earlier, as flushes do that stand-ins answer, is part of the same round
                history.pause = min(2 * history.pause, LONGEST_PAUSE)
            return False
        if len(history.repairs) == history.repairs.maxlen and now - history.repairs[0] <= history.window:
            history.pause = FIRST_PAUSE
            self._contended.add(name)
            return True
        return False

    def allowed_at(self, name: str) -> float:
        """The time from which the name may be repaired again."""
        if not self._contended:
            return _NEVER
        return max(self._allowed_at(name), self._allowed_at(INSTANCE))

    def _allowed_at(self, name: str) -> float:
        history = self._histories.get(name)
        return history.repairs[-1] + history.pause if history and history.pause else _NEVER

    def contended(self) -> frozenset[str]:
        """The names that are backed off from."""
        return frozenset(self._contended)

    def end_at(self) -> float:
        """When the next contention may be over: infinity if there is none."""
        return min((self._histories[name].repairs[-1] + QUIET for name in self._contended), default=float("inf"))

    def over(self, now: float) -> list[str]:
        """Forget the names that have been quiet long enough, and return those whose contention ends."""
        quiet = [name for name, history in self._histories.items() if now >= history.repairs[-1] + QUIET]
        over = [name for name in quiet if self._histories.pop(name).pause]
        self._contended.difference_update(over)
        return over


def _history_of(name: str) -> _History:
    if name == INSTANCE:
        return _History(WINDOW_OF_ALL, deque(maxlen=REPAIRS_OF_ALL))
    return _History(WINDOW, deque(maxlen=REPAIRS))
