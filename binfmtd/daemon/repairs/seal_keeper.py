"""The seal of the instance that the daemon is attached to, as config and pauses require it.

Another process can open the seal and write.  When the daemon notices that, it plans a look at everything, since no
event may have named what that process wrote.
"""

import time

from binfmtd.daemon.entries.reconciler import Reconciler
from binfmtd.daemon.repairs.event_reader import TouchedEntries
from binfmtd.daemon.repairs.repair_schedule import RepairSchedule
from binfmtd.daemon.repairs.sealing import Sealing
from binfmtd.daemon.watches.instance_watch import InstanceWatch
from binfmtd.kernel.mount import Mounted


class SealKeeper:
    """The rules of when to seal; ``Sealing`` has the seal itself."""

    def __init__(
        self,
        sealing: Sealing,
        reconciler: Reconciler,
        instance_watch: InstanceWatch,
        touched: TouchedEntries,
        schedule: RepairSchedule,
    ) -> None:
        self._sealing = sealing
        self._reconciler = reconciler
        self._instance_watch = instance_watch
        self._touched = touched
        self._schedule = schedule

    def apply(self) -> None:
        """Seal the attached instance or open it: config or pauses have changed."""
        self._instance_watch.regard_as(self.keep(self._instance_watch.mounted))

    def keep(self, mounted: Mounted | None) -> Mounted | None:
        """Seal this instance or open it, as config and pauses require; return it as the daemon sees it then."""
        wanted, paused = self._reconciler.config.policy.sealed, bool(self._reconciler.pauses.until)
        if self._sealing.use(mounted, wanted=wanted, paused=paused):
            self._look_at_everything()
        return None if mounted is None else self._sealing.seen(mounted)

    def retry(self) -> None:
        """Let the next ``keep`` try again to seal an instance that could not be sealed."""
        self._sealing.retry()

    def check(self, _: float = 0.0) -> None:
        """Close the seal again if another process has opened it, or try again to hold an instance that is not held."""
        if self._sealing.seal is None and time.monotonic() >= self._sealing.due_at:
            self.apply()
        elif self._sealing.check():
            self._look_at_everything()

    def _look_at_everything(self) -> None:
        self._touched.read_all()
        self._schedule.look_later(time.monotonic())
