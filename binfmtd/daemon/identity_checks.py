"""Comparisons of inode numbers that no event calls for: each registration gives an entry a new number.

* While the throttle keeps events unread, the numbers of all declared names are compared every 0.1 s.
* A stand-in that was withheld is looked up when it may be registered: when the budget of CPU time has been refilled, or
  when a backoff allows it.
"""

import time

from binfmtd.daemon.readiness import Readiness
from binfmtd.daemon.repairs.interpreter_looks import InterpreterLooks
from binfmtd.daemon.repairs.repair_schedule import RepairSchedule
from binfmtd.daemon.repairs.urgent_repairs import UrgentRepairs
from binfmtd.daemon.throttle import EventThrottle

_LOOK_SECONDS = 1.0  # from one pass to the next, after stand-ins that were withheld
_NEVER = float("inf")


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
    """The stand-ins that wait for the budget of CPU time, or for the end of a backoff.

    A pass follows, since it repairs entries that exist, but are not as declared: one a second at most, because other
    programs may have stand-ins withheld without end.
    """

    def __init__(self, urgent: UrgentRepairs, schedule: RepairSchedule, readiness: Readiness) -> None:
        self._urgent = urgent
        self._schedule = schedule
        self._readiness = readiness
        self._looked_at = -_NEVER
        self._look_at = _NEVER

    @property
    def due_at(self) -> float:
        """The time of the next registration or pass (monotonic, in seconds); infinity if none waits."""
        return min(self._schedule.restore_at(), self._look_at)

    def restore(self, now: float) -> None:
        """Register the stand-ins that were withheld, or have a pass made: whichever is due."""
        if now >= self._schedule.restore_at():
            if self._urgent.check_identities(self._schedule.take_withheld()):
                self._readiness.changed()
            self._look_at = max(now, self._looked_at + _LOOK_SECONDS)
        if now >= self._look_at:
            self._looked_at, self._look_at = now, _NEVER
            self._schedule.look_later(now)
