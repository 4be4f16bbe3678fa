"""The parts of the report: each has a table, goals with measured values, and samples to plot."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Goal(NamedTuple):
    """A goal and the measured value; ``limit`` is the most that is allowed."""

    what: str
    value: float
    limit: float
    unit: str = "x"

    @property
    def met(self) -> bool:
        return self.value <= self.limit

    @property
    def shown(self) -> str:
        return f"{shown(self.value)} {self.unit}"


class Part(NamedTuple):
    """One part of the report."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    goals: Sequence[Goal] = ()
    samples: Mapping[str, Sequence[float]] = {}


def shown(value: float) -> str:
    """Return a number with three significant digits, but whole from 100 on, and with at most three decimals."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if abs(value) < 100 else 0
    return f"{value:,.{min(digits, 3)}f}"


def median(times: Sequence[float]) -> float:
    return statistics.median(times)


def quantile(times: Sequence[float], share: float) -> float:
    """Return the time that this share of them did not exceed."""
    return sorted(times)[math.ceil(share * len(times)) - 1]


def in_turns(turns: int, runs: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """Run all of them in turns, so that slow moments affect all alike; a first run of each is not counted."""
    for run in runs.values():
        run()
    found: dict[str, list[T]] = {name: [] for name in runs}
    for _ in range(turns):
        for name, run in runs.items():
            found[name].append(run())
    return found
