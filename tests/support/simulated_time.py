"""A simulated clock with an agenda.

Only a wait, a write to the kernel and work in a thread advance the clock.  On its way it carries out the agenda: what
other programs and our own threads do, each at its time.  So a wait ends as it would end in reality, and a run gives the
same result each time.
"""

import heapq
import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

START = 1000.0  # seconds, monotonic
_BOOT = 50.0  # seconds by which the clock since the boot is ahead of the monotonic one
_WALL = 1.7e9


class SimulatedTime:
    """The clock, in seconds, and the agenda."""

    def __init__(self) -> None:
        self.now = START
        self.cpu = 0.0
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._added = 0

    def at(self, when: float, do: Callable[[], None]) -> None:
        """Do this at a time; what was added first comes first."""
        self._added += 1
        heapq.heappush(self._agenda, (when, self._added, do))

    def advance(self, end: float, woken: Callable[[], bool]) -> bool:
        """Carry out the agenda until ``woken`` returns True, or the clock shows ``end``; return the last result."""
        while not (found := woken()) and self.now < end:
            if not self._agenda or self._agenda[0][0] > end:
                assert end < math.inf, "the loop waits for ever"
                self.now = end
                break
            self._next()
        return found

    def spend(self, seconds: float, cpu: float) -> None:
        """Let the daemon spend this time; meanwhile other programs go on."""
        end, self.cpu = self.now + seconds, self.cpu + cpu
        while self._agenda and self._agenda[0][0] <= end:
            self._next()
        self.now = max(self.now, end)

    def _next(self) -> None:
        when, _, do = heapq.heappop(self._agenda)
        self.now = max(self.now, when)
        do()

    def _sleep(self, seconds: float) -> None:
        self.advance(self.now + seconds, lambda: False)

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Have the module ``time`` show this clock."""
        clocks: dict[str, Callable[..., object]] = {
            "monotonic": lambda: self.now,
            "monotonic_ns": lambda: round(self.now * 1e9),
            "thread_time": lambda: self.cpu,
            "time": lambda: _WALL + self.now,
            "clock_gettime": lambda _: self.now + _BOOT,
            "sleep": self._sleep,
        }
        with ExitStack() as patches:
            for name, clock in clocks.items():
                patches.enter_context(mock.patch.object(time, name, clock))
            yield

    def since_boot(self) -> float:
        return self.now + _BOOT
