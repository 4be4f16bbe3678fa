"""The deadlines of the loop, each with its callback.

Each deadline is listed once.  Its value is read whenever the loop needs it, so a component need not report that its own
has moved.  There are about a dozen: to read them all takes a few microseconds, before the wait.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol


class HasDeadline(Protocol):
    """A component that has to be called at some time."""

    @property
    def due_at(self) -> float:
        """The time (monotonic, in seconds); infinity: never."""


class Timer(NamedTuple):
    """The owner of a deadline, and what to call when it has come, with the time."""

    owner: HasDeadline
    call: Callable[[float], object]


class Timers:
    """The timers, in the order in which those that are due are called."""

    def __init__(self, timers: Sequence[Timer]) -> None:
        self._timers = timers
        self._first = 0  # the place of the timer that comes first

    def next(self) -> float:
        """Return the earliest deadline; infinity if there is none."""
        return min(timer.owner.due_at for timer in self._timers)

    def run(self, now: float, until: Callable[[], bool] = lambda: False) -> None:
        """Call what is due.  Each deadline is read just before, since an earlier callback may have moved it.

        If ``until`` returns True after one of them, the next run begins with the others.
        """
        first, self._first = self._first, 0
        for place in range(first, first + len(self._timers)):
            timer = self._timers[place % len(self._timers)]
            if now >= timer.owner.due_at:
                timer.call(now)
                if until():
                    self._first = (place + 1) % len(self._timers)
                    return
