"""A storm of events that call for nothing: listen less often, so that looking for nothing costs next to nothing.

Somebody writes to the instance, or to what else is watched, as fast as he can.  Each look that finds nothing to repair,
and each pass that follows and finds nothing to do, is paid, in CPU time, from a budget; it refills by 3 ms a second up
to 300 ms, which no ordinary use spends.  As long as it is overdrawn, what happens is not listened to, three seconds at
most; only the declared names are glanced at, by their numbers, so that what is gone or registered anew meanwhile gets
its stand-in; what was disabled or switched off waits.  Pure: times are handed in, in seconds.
"""

BUDGET = 0.3
REFILL = 0.003  # a second
LONGEST_PAUSE = 3.0
GLANCE = 0.1  # seconds from one to the next


class Storm:
    """The budget of the looks that found nothing."""

    def __init__(self) -> None:
        self.listen_at = float("-inf")  # until then, events are left where they are
        self.glance_at = float("inf")
        self._spent = 0.0
        self._at = 0.0

    def looked_for_nothing(self, cost: float, now: float) -> None:
        """Pay for such a look."""
        left = max(0.0, self._spent - (now - self._at) * REFILL)
        self._spent = min(left + cost, BUDGET + LONGEST_PAUSE * REFILL)
        self._at = now
        self.listen_at = now + max(0.0, self._spent - BUDGET) / REFILL
        self.glanced(now)

    def glanced(self, now: float) -> None:
        """The declared names were looked at just now."""
        self.glance_at = now + GLANCE if now + GLANCE < self.listen_at else float("inf")
