"""A budget of CPU time for work that other programs can cause without end: a token bucket.

As long as the bucket is not empty, the work is done at once.  When it is empty, the next work waits until the bucket
has been refilled.

Pure: times (monotonic) and costs are arguments, in seconds.
"""

from math import inf


class CpuBudget:
    """A bucket that holds ``capacity`` seconds of CPU time, and gets ``refill`` seconds of it a second.

    No work waits for longer than ``longest_wait`` seconds, also where one piece of it costs more than is refilled in
    that time: a slow machine then uses a larger share.
    """

    def __init__(self, capacity: float, refill: float, longest_wait: float = inf) -> None:
        self._capacity = capacity
        self._refill = refill
        self._longest_wait = longest_wait
        self._left = capacity
        self._at = 0.0

    def use_limits(self, capacity: float, refill: float, now: float) -> None:
        """Use another bucket from now on; it holds what is left, as far as that fits."""
        if (capacity, refill) != (self._capacity, self._refill):
            self.spend(0.0, now)
            self._capacity, self._refill = capacity, refill
            self._left = min(self._left, capacity)

    def spend(self, cost: float, now: float) -> None:
        """Pay for work that was done; the last of it may cost more than was left, up to the capacity."""
        least = -min(self._capacity, self._longest_wait * self._refill)
        left = min(self._capacity, self._left + max(0.0, now - self._at) * self._refill) - cost
        self._left = max(left, least)
        self._at = now

    def free_at(self) -> float:
        """Return the time from which the next work may be done; it is in the past while something is left."""
        return self._at - self._left / self._refill
