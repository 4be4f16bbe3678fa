"""The CPU time that the daemon spends on registering stand-ins again: a token bucket.

However often another process removes stand-ins, each is registered again at once as long as the bucket is not empty.
It holds 200 ms and is refilled by 20 ms a second: 2 % of a core in the long run.  Looking at the events and the passes
that follow are not paid from it.  A stand-in that is
removed alone costs about 0.2 ms, a flush of 33 handlers about 1 ms, so this pays for 100 of the one or 20 of the other
a second.  When the bucket is empty, the next is registered when it has been refilled.

Pure: times (monotonic) and costs are handed in, in seconds.
"""

CAPACITY = 0.2
REFILL = 0.02  # a second


class StandInBudget:
    """What is left."""

    def __init__(self) -> None:
        self._left = CAPACITY
        self._at = 0.0

    def spend(self, cost: float, now: float) -> None:
        """Pay for stand-ins that were registered; the last of them may cost more than was left."""
        left = min(CAPACITY, self._left + max(0.0, now - self._at) * REFILL) - cost
        self._left = max(left, -CAPACITY)
        self._at = now

    def free_at(self) -> float:
        """The time from which the next may be registered; one in the past while something is left."""
        return self._at - self._left / REFILL
