"""Comparisons of inode numbers that no event calls for: each registration gives an entry a new number.

* While the throttle keeps events unread, the numbers of all declared names are compared every 0.1 s.
* A stand-in that was withheld is looked up when it may be registered: when the budget of CPU time has been refilled, or
  when a backoff allows it.
"""

import time

from binfmtd.daemon.interpreter_looks import InterpreterLooks
from binfmtd.daemon.readiness import Readiness
from binfmtd.daemon.repair_schedule import RepairSchedule
from binfmtd.daemon.throttle import EventThrottle
from binfmtd.daemon.urgent_repairs import UrgentRepairs


class IdentityChecks:
    """The comparisons while no events are read."""

    def __init__(
        self, urgent: UrgentRepairs, throttle: EventThrottle, looks: InterpreterLooks, readiness: Readiness
    ) -> None:
        self._urgent = urgent
        self._throttle = throttle
        self._looks = looks
        self._readiness = readiness

    @property
    def due_at(self) -> float:
        """The time of the next comparison (monotonic, in seconds); infinity while events are read."""
        return self._throttle.check_at

    def check(self, now: float) -> None:
        """Compare the inode numbers of the declared names, and repair."""
        cpu = time.thread_time()
        if news := self._urgent.check_identities():
            self._readiness.changed()
        self._throttle.checked(0.0 if news else time.thread_time() - cpu, now)
        self._looks.verify(now)  # events about interpreters' files are not read, either


class WithheldStandIns:
    """The stand-ins that wait for the budget of CPU time, or for the end of a backoff."""

    def __init__(self, urgent: UrgentRepairs, schedule: RepairSchedule, readiness: Readiness) -> None:
        self._urgent = urgent
        self._schedule = schedule
        self._readiness = readiness

    @property
    def due_at(self) -> float:
        """The time when the next may be registered (monotonic, in seconds); infinity if none waits."""
        return self._schedule.restore_at()

    def restore(self, now: float) -> None:
        """Register the stand-ins that were withheld."""
        if self._urgent.check_identities(self._schedule.take_withheld()):
            self._readiness.changed()
        self._schedule.look_later(now)  # a pass repairs entries that exist, but are not as declared
