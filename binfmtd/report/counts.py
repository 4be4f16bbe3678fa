"""What the daemon counts from its start on: for the status, the metrics and its last log line.

Counting is cheap, and done whether anybody asks or not.
"""

from bisect import bisect_left
from collections import Counter
from typing import Self

# Upper bounds in seconds: a stand-in takes some 0.3 ms, a settled repair 20 ms to 1 s, a back-off 30 s.
BOUNDS = (
    *(0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)


class Durations:
    """How many took how long: ``counts`` go with BOUNDS, the last is of those above all."""

    def __init__(self) -> None:
        self.counts: list[int] = [0] * (len(BOUNDS) + 1)
        self.total = 0.0  # seconds

    def add(self, seconds: float) -> None:
        """Count one more."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    def copy(self) -> Self:
        """The same at this moment."""
        copied = type(self)()
        copied.counts, copied.total = self.counts[:], self.total
        return copied


class Counts:
    """The numbers.  All times are seconds; moments are seconds since the epoch."""

    def __init__(self, started_at: float) -> None:
        self.started_at = started_at
        self.repairs: Counter[tuple[str, str]] = Counter()  # by entry and drift
        self.unwanted = 0  # entries of others that were removed or disabled: their names are not ours to count by
        self.passes: Counter[str] = Counter()  # by trigger
        self.contentions = 0
        self.log_lines_dropped = 0  # because the reader of the log did not take them
        self.reload_failures = 0
        self.served = Durations()  # from hearing of a drift until programs run again
        self.settled = Durations()  # from the same until the proper entry stands
        self.last_pass_at = 0.0
        self.last_success_at = 0.0  # a pass that left nothing to be done

    def repairs_by_entry(self) -> Counter[str]:
        """The same whatever the drift was."""
        found: Counter[str] = Counter()
        for (entry, _), number in self.repairs.items():
            found[entry] += number
        return found

    def copy(self) -> Self:
        """The same at this moment."""
        copied = type(self)(self.started_at)
        copied.__dict__.update(self.__dict__)
        copied.repairs, copied.passes = self.repairs.copy(), self.passes.copy()
        copied.served, copied.settled = self.served.copy(), self.settled.copy()
        return copied
