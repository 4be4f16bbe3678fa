"""Pauses in force: read when the file changes or a pause ends, and put in force between two passes.

A pass comes before, which writes what is open for the names that are newly paused, so that no temporary stand-in stays.
Another pass comes after, which repairs what is no longer paused.
"""

from functools import partial

from binfmtd.daemon.background import Background
from binfmtd.daemon.entries.reconciler import Reconciler
from binfmtd.daemon.passes import Passes
from binfmtd.daemon.readiness import Readiness
from binfmtd.daemon.repairs.seal_keeper import SealKeeper
from binfmtd.daemon.repairs.urgent_repairs import UrgentRepairs
from binfmtd.daemon.reporting.reporter import Reporter
from binfmtd.daemon.state_files.pause_file import PauseFile, since_boot
from binfmtd.daemon.trigger import Trigger
from binfmtd.model.pause import Pauses

_PAUSES = "pauses"  # key of the work in the background
_NEVER = float("inf")


class PauseControl:
    """The pauses of the file, applied to the daemon."""

    def __init__(
        self,
        file: PauseFile,
        background: Background,
        reconciler: Reconciler,
        urgent: UrgentRepairs,
        seal: SealKeeper,
        passes: Passes,
        report: Reporter,
        readiness: Readiness,
    ) -> None:
        self._file = file
        self._background = background
        self._reconciler = reconciler
        self._urgent = urgent
        self._seal = seal
        self._passes = passes
        self._report = report
        self._readiness = readiness

    @property
    def due_at(self) -> float:
        """The time when the next pause ends, or an unreadable file is read again (monotonic, in seconds)."""
        return _NEVER if self._background.busy(_PAUSES) else self._file.due_at(self._reconciler.pauses)

    def read_at_start(self) -> None:
        """Read the file now, and put its pauses in force before the first pass."""
        self._reconciler.use_pauses(self._file.read())
        self._report.pauses_unread(self._file.problem)

    def read(self) -> None:
        """Read the file in the background, and put its pauses in force."""
        before = self._reconciler.pauses

        def use(pauses: Pauses) -> None:
            if self._report.pauses_unread(self._file.problem):
                self._readiness.changed()
            self._use(pauses)

        self._background.run(_PAUSES, lambda: self._file.read(before), use)

    def end_due(self, _: float) -> None:
        """End the pauses that are over, and read the file again."""
        self._use(self._reconciler.pauses.at(since_boot()))
        self.read()

    def _use(self, pauses: Pauses) -> None:
        before = self._reconciler.pauses
        if pauses == before:
            return
        put_in_force = partial(self._put_in_force, pauses, before)
        if pauses.until.keys() - before.until.keys():
            self._passes.make(Trigger.PAUSE, force=pauses.hold, then=put_in_force)
        else:
            put_in_force()

    def _put_in_force(self, pauses: Pauses, before: Pauses) -> None:
        self._reconciler.use_pauses(pauses)
        self._urgent.hold(pauses)
        self._report.paused(pauses, before)
        self._seal.apply()
        self._passes.make(Trigger.PAUSE)
        self._readiness.changed()
