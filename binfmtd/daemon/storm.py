"""A storm of events that call for nothing: listen less often, so that looking for nothing costs next to nothing.

Somebody writes to the instance, or to what else is watched, as fast as he can.  Each look that finds nothing to repair,
and each pass that follows and finds nothing to do, is paid, in CPU time, from a budget; it refills by 3 ms a second up
to 300 ms, which no ordinary use spends, or to what twenty such passes cost: among 20,000 entries of others one alone
takes as long, and whoever is slow to close what he wrote to causes it.  As long as it is overdrawn, what happens is not
listened to, three seconds at most, or as long as makes one look in so many seconds cheap enough on a slow or busy
machine; only the declared names are glanced at, by their numbers, so that what is gone or registered anew meanwhile
gets its stand-in; what was disabled or switched off waits.  Pure: times are handed in, in seconds.
"""

BUDGET = 0.3
REFILL = 0.003  # a second
PASSES = 20  # that the budget is good for at least
LONGEST_PAUSE = 3.0
GLANCE = 0.1  # seconds from one to the next, unless they take too much
SHARE = 0.004  # of a core, which looks may take that are made however overdrawn the budget is
GLANCES_SHARE = 0.004
_MANY = 10  # glances, over which their cost is averaged: now and then one takes ten times as long


class Storm:
    """The budget of the looks that found nothing."""

    def __init__(self) -> None:
        self.listen_at = float("-inf")  # until then, events are left where they are
        self.glance_at = float("inf")
        self._budget = BUDGET
        self._spent = 0.0
        self._at = 0.0
        self._glance = 0.0  # what one costs

    def passed_for_nothing(self, cost: float, now: float) -> None:
        """Pay for a pass that found nothing to do."""
        self._budget = max(BUDGET, PASSES * cost)
        self.looked_for_nothing(cost, now)

    def looked_for_nothing(self, cost: float, now: float) -> None:
        """Pay for a look that found nothing to repair."""
        left = max(0.0, self._spent - (now - self._at) * REFILL)
        self._spent = min(left + cost, self._budget + max(LONGEST_PAUSE, cost / SHARE) * REFILL)
        self._at = now
        self.listen_at = now + max(0.0, self._spent - self._budget) / REFILL
        self._plan_glance(now)

    def glanced(self, cost: float, now: float) -> None:
        """The declared names were looked at just now, which cost so much for nothing."""
        self._glance += (cost - self._glance) / _MANY
        self._plan_glance(now)

    def _plan_glance(self, now: float) -> None:
        at = now + max(GLANCE, self._glance / GLANCES_SHARE)
        self.glance_at = at if at < self.listen_at else float("inf")
