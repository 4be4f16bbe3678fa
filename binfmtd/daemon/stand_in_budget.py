"""The CPU time that the daemon spends on registering stand-ins again: a token bucket.

However often another program removes stand-ins, each is registered again at once as long as the bucket is not empty.
When it is empty, the next is registered as soon as it has been refilled.  It holds 200 ms, refilled by 20 ms a second:
2 % of a core in the long run.  A stand-in that is removed alone costs about 0.2 ms, a flush of 33 handlers about 1 ms.
So the refill of one second pays for 100 stand-ins or for 20 flushes.  The look at the events and the passes that follow
are not paid from it.

Pure: times (monotonic) and costs are arguments, in seconds.
"""

CAPACITY = 0.2  # seconds of CPU time
REFILL = 0.02  # the same, a second


class StandInBudget:
    """A token bucket over the CPU time of registering stand-ins, in seconds."""

    def __init__(self) -> None:
        self._left = CAPACITY
        self._at = 0.0

    def spend(self, cost: float, now: float) -> None:
        """Pay for stand-ins that were registered; the last of them may cost more than was left."""
        left = min(CAPACITY, self._left + max(0.0, now - self._at) * REFILL) - cost
        self._left = max(left, -CAPACITY)
        self._at = now

    def free_at(self) -> float:
        """Return the time from which the next may be registered; it is in the past while something is left."""
        return self._at - self._left / REFILL
