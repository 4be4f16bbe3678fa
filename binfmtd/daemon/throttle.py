"""A storm of events that call for no repair: a token bucket over the CPU time of looks that found nothing to do.

Another program may write without pause to the instance, or to something else that is watched.

* Each look that finds nothing to repair is paid from the bucket, and so is each pass that follows and finds nothing to
  do.  The bucket holds 300 ms and is refilled by 3 ms a second: no ordinary use empties it.
* While it is overdrawn, inotify is not read, for three seconds at most.  Where one look takes long, on a slow or busy
  machine, this limit is higher: so long that one look takes 0.4 % of a core in that time.
* Meanwhile the inode numbers of the declared names are compared every 100 ms.  So a name that is gone or registered
  anew gets its stand-in; an entry that was disabled, or an instance that was switched off, waits.
* The bucket holds at least what twenty passes cost.  With 20,000 foreign entries one pass takes 300 ms, and a program
  that is slow to close the file that it wrote to causes such a pass.

Pure: times (monotonic) and costs are arguments, in seconds.
"""

BUDGET = 0.3  # seconds of CPU time
REFILL = 0.003  # the same, a second
PASSES = 20  # that a full bucket pays for at least
LONGEST_PAUSE = 3.0  # seconds
GLANCE = 0.1  # seconds from one comparison of inode numbers to the next, unless they cost too much
SHARE = 0.004  # of a core, for the looks that are made although the bucket is overdrawn
GLANCES_SHARE = 0.004  # of a core, for the comparisons of inode numbers
_MANY = 10  # comparisons, over which their cost is averaged: now and then one takes ten times as long


class EventThrottle:
    """A token bucket over the CPU time of looks that found nothing to do."""

    def __init__(self) -> None:
        self.listen_at = float("-inf")  # until then, inotify is not read
        self.glance_at = float("inf")  # when to compare inode numbers
        self._budget = BUDGET
        self._spent = 0.0
        self._at = 0.0
        self._glance = 0.0  # the CPU time that one comparison takes

    def passed_for_nothing(self, cost: float, now: float) -> None:
        """Pay for a pass that found nothing to do."""
        self._budget = max(BUDGET, PASSES * cost)
        self.looked_for_nothing(cost, now)

    def looked_for_nothing(self, cost: float, now: float) -> None:
        """Pay for a look that found nothing to repair."""
        left = max(0.0, self._spent - (now - self._at) * REFILL)
        self._spent = min(left + cost, self._budget + max(LONGEST_PAUSE, cost / SHARE) * REFILL)
        self._at = now
        self.listen_at = now + max(0.0, self._spent - self._budget) / REFILL
        self._plan_glance(now)

    def glanced(self, cost: float, now: float) -> None:
        """Take in the cost of a comparison of inode numbers: 0 if it found something."""
        self._glance += (cost - self._glance) / _MANY
        self._plan_glance(now)

    def _plan_glance(self, now: float) -> None:
        at = now + max(GLANCE, self._glance / GLANCES_SHARE)
        self.glance_at = at if at < self.listen_at else float("inf")
