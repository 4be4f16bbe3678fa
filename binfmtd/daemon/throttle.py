"""A throttle for events that call for no repair: a token bucket over the CPU time of looks that found nothing to do.

Another program may write without pause to the instance, or to something else that is watched.

* Each look that finds nothing to repair is paid from the bucket, and so is each pass that follows and finds nothing to
  do.  The bucket holds 300 ms and is refilled by 3 ms a second: no ordinary use empties it.  It holds 30 ms while the
  daemon backs off from a name: most events are then of the program that keeps undoing a repair.
* While it is overdrawn, inotify is not read, for three seconds at most.  Where one look takes long, on a slow or busy
  machine, this limit is higher: so long that one look takes 0.4 % of a core in that time.
* Meanwhile the inode numbers of the declared names are compared every 100 ms, or less often if they are many.  So a
  name that is gone or registered anew gets its stand-in; an entry that was disabled, or an instance that was switched
  off, waits.
* No drift calls for a pass meanwhile until its second is over (``Debounce.calls_at``): its name cannot be known to be
  quiet, so the pass would write nothing, and would be paid from the bucket.
* The bucket holds at least what twenty passes cost.  With many foreign entries one pass takes long, and a program that
  is slow to close the file that it wrote to causes such a pass.

Pure: times (monotonic) and costs are arguments, in seconds.
"""

from collections.abc import Callable, Collection

BUDGET = 0.3  # seconds of CPU time
CONTENDED_BUDGET = 0.03  # seconds of CPU time, while the daemon backs off from a name
REFILL = 0.003  # seconds of CPU time a second
PASSES = 20  # that a full bucket pays for at least
LONGEST_PAUSE = 3.0  # seconds
CHECK_SECONDS = 0.1  # seconds from one comparison of inode numbers to the next, unless they cost too much
SHARE = 0.004  # of a core, for the looks that are made although the bucket is overdrawn
CHECKS_SHARE = 0.004  # of a core, for the comparisons of inode numbers
CONTENDED_CHECKS_SHARE = 0.0015  # of a core, for these while the daemon backs off from a name
_MANY = 10  # comparisons, over which their cost is averaged: now and then one takes ten times as long


class EventThrottle:
    """A token bucket over the CPU time of looks that found nothing to do."""

    def __init__(self, contended: Callable[[], Collection[str]] = tuple) -> None:
        """``contended``: returns the names that the daemon backs off from."""
        self.read_at = float("-inf")  # until then, inotify is not read
        self.check_at = float("inf")  # when to compare inode numbers
        self._contended = contended
        self._least = 0.0  # seconds of CPU time that the bucket holds at least
        self._spent = 0.0
        self._at = 0.0
        self._check_cost = 0.0  # the CPU time that one comparison takes

    def charge_pass(self, cost: float, now: float) -> None:
        """Pay for a pass that found nothing to do."""
        self._least = PASSES * cost
        self.charge_look(cost, now)

    def charge_look(self, cost: float, now: float) -> None:
        """Pay for a look that found nothing to repair."""
        budget = max(CONTENDED_BUDGET if self._contended() else BUDGET, self._least)
        left = max(0.0, self._spent - (now - self._at) * REFILL)
        self._spent = min(left + cost, budget + max(LONGEST_PAUSE, cost / SHARE) * REFILL)
        self._at = now
        self.read_at = now + max(0.0, self._spent - budget) / REFILL
        self._plan_check(now)

    def checked(self, cost: float, now: float) -> None:
        """Take in the cost of a comparison of inode numbers: 0 if it found something."""
        self._check_cost += (cost - self._check_cost) / _MANY
        self._plan_check(now)

    def _plan_check(self, now: float) -> None:
        share = CONTENDED_CHECKS_SHARE if self._contended() else CHECKS_SHARE
        at = now + max(CHECK_SECONDS, self._check_cost / share)
        self.check_at = at if at < self.read_at else float("inf")
