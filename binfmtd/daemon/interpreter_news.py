"""Continues what has waited for a look at the files of interpreters.

The first of these that applies:

1. A new config is prepared.
2. The pass that has waited is made.
3. Stale entries get their stand-ins at once, and everything else waits until it is quiet.
"""

import time

from binfmtd.daemon.entries.reconciler import Reconciler
from binfmtd.daemon.interpreters.interpreter_files import InterpreterFiles
from binfmtd.daemon.passes import Passes
from binfmtd.daemon.reload import Reload
from binfmtd.daemon.repairs.interpreter_looks import InterpreterLooks
from binfmtd.daemon.repairs.repair_schedule import RepairSchedule


class InterpreterNews:
    """The handler of the end of a look."""

    def __init__(
        self,
        interpreters: InterpreterFiles,
        looks: InterpreterLooks,
        reconciler: Reconciler,
        schedule: RepairSchedule,
        passes: Passes,
        reload: Reload,
    ) -> None:
        self._interpreters = interpreters
        self._looks = looks
        self._reconciler = reconciler
        self._schedule = schedule
        self._passes = passes
        self._reload = reload

    def looked(self, *, news: bool) -> None:
        """Continue what waited for the interpreters' files; ``news``: some of them have changed."""
        config = self._looks.take_prepared()
        if config is not None:
            self._passes.cancel_waiting()
            self._reload.prepare(config)
        elif not self._passes.make_waiting(news=news):
            if news:
                self._upgrade()
            elif self._interpreters.caught_up and self._schedule.drifting():  # F had to wait for the look
                self._passes.bridge_upgraded()
        if self._interpreters.out_of_date:  # another event came meanwhile
            self._schedule.look_later(time.monotonic())

    def failed_over(self) -> None:
        """Have the next pass choose among several interpreters again: by a probe, others of them fail than before."""
        self._reconciler.interpreter_arrived()
        self._schedule.look_later(time.monotonic())

    def _upgrade(self) -> None:
        self._reconciler.interpreter_arrived()
        self._passes.bridge_upgraded(self._try_again)

    def _try_again(self) -> None:
        self._reconciler.retry(interpreters=True)
        self._schedule.look_later(time.monotonic())
