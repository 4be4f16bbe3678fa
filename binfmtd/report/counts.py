"""The daemon's counters from its start on: for the status, the metrics and its last log line.

Counting is cheap, so it does not depend on the config.
"""

from bisect import bisect_left
from collections import Counter
from typing import Self

# Upper bounds in seconds: a stand-in takes some 0.3 ms, a settled repair 20 ms to 1 s, a backoff 30 s.
BOUNDS = (
    *(0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)


class Durations:
    """A histogram of durations: ``counts`` has a number for each of BOUNDS, and a last one for those above all."""

    def __init__(self) -> None:
        self.counts: list[int] = [0] * (len(BOUNDS) + 1)
        self.total = 0.0  # seconds

    def add(self, seconds: float) -> None:
        """Count one more duration, in seconds."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    def copy(self) -> Self:
        """Return a copy, which later durations do not change."""
        copied = type(self)()
        copied.counts, copied.total = self.counts[:], self.total
        return copied


class Counts:
    """The counters.  All times are seconds; moments are seconds since the epoch."""

    def __init__(self, started_at: float) -> None:
        self.started_at = started_at
        self.repairs: Counter[tuple[str, str]] = Counter()  # by entry and drift
        self.unwanted = 0  # foreign entries that were removed or disabled; not by name, as the names are not ours
        self.passes: Counter[str] = Counter()  # by trigger
        self.contentions = 0
        self.log_lines_dropped = 0  # because the reader of the log did not take them
        self.reload_failures = 0
        self.served = Durations()  # from the notice of a drift until programs run again
        self.settled = Durations()  # from the notice of a drift until the proper entry is as declared
        self.last_pass_at = 0.0
        self.last_success_at = 0.0  # of the last pass that left nothing to do

    def repairs_by_entry(self) -> Counter[str]:
        """Return the number of repairs of each entry, of all kinds of drift together."""
        by_entry: Counter[str] = Counter()
        for (entry, _), number in self.repairs.items():
            by_entry[entry] += number
        return by_entry

    def copy(self) -> Self:
        """Return a copy, which later counting does not change."""
        copied = type(self)(self.started_at)
        for name, value in vars(self).items():
            setattr(copied, name, value.copy() if hasattr(value, "copy") else value)
        return copied
