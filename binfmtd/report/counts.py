"""What the daemon counts from its start on: for the status, the metrics and its last log line.

Counting is cheap, and done whether anybody asks or not.
"""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from typing import Self

# Upper bounds in seconds: a stand-in takes some 0.3 ms, a settled repair 20 ms to 1 s, a back-off 30 s.
BOUNDS = (
    *(0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)


@dataclass(slots=True)
class Durations:
    """How many took how long: ``counts`` go with BOUNDS, the last is of those above all."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0.0  # seconds

    def add(self, seconds: float) -> None:
        """Count one more."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    def copy(self) -> Self:
        """The same at this moment."""
        return type(self)(self.counts[:], self.total)


@dataclass(slots=True)
class Counts:
    """The numbers.  All times are seconds; moments are seconds since the epoch."""

    started_at: float
    repairs: Counter[tuple[str, str]] = field(default_factory=Counter)  # by entry and drift
    unwanted: int = 0  # entries of others that were removed or disabled: their names are not ours to count by
    passes: Counter[str] = field(default_factory=Counter)  # by trigger
    contentions: int = 0
    reload_failures: int = 0
    served: Durations = field(default_factory=Durations)  # from hearing of a drift until programs run again
    settled: Durations = field(default_factory=Durations)  # from the same until the proper entry stands
    last_pass_at: float = 0.0
    last_success_at: float = 0.0  # a pass that left nothing to be done

    def repairs_by_entry(self) -> Counter[str]:
        """The same whatever the drift was."""
        found: Counter[str] = Counter()
        for (entry, _), number in self.repairs.items():
            found[entry] += number
        return found

    def copy(self) -> Self:
        """The same at this moment."""
        return type(self)(
            self.started_at,
            self.repairs.copy(),
            self.unwanted,
            self.passes.copy(),
            self.contentions,
            self.reload_failures,
            self.served.copy(),
            self.settled.copy(),
            self.last_pass_at,
            self.last_success_at,
        )
