"""When the daemon looks at the files of interpreters, and at which.

It keeps facts about the interpreters of the config in force, and of one that is about to be (``prepare``).  It looks

* when an event says that a file has changed: at once if a name has drifted, or for the first file that is installed in
  a second.  Else the next pass has it looked at;
* every second while the throttle keeps events unread;
* when the kernel does not open a file in time.
"""

import time

from binfmtd.daemon.entries.reconciler import Reconciler
from binfmtd.daemon.interpreters.host_facts import paths_of
from binfmtd.daemon.interpreters.interpreter_files import InterpreterFiles
from binfmtd.daemon.repairs.instance_access import InstanceAccess
from binfmtd.daemon.repairs.repair_schedule import RepairSchedule
from binfmtd.daemon.watches.events import PendingEvents
from binfmtd.model.config import Config

_CALM = 1.0  # seconds: of interpreters that arrive at shorter intervals, only the first is looked at at once
_VERIFIED = 1.0  # seconds from one look at interpreters to the next, while no events are read


class InterpreterLooks:
    """The times of the last looks, and the config that waits for one."""

    def __init__(
        self, interpreters: InterpreterFiles, reconciler: Reconciler, access: InstanceAccess, schedule: RepairSchedule
    ) -> None:
        self._interpreters = interpreters
        self._reconciler = reconciler
        self._access = access
        self._schedule = schedule
        self._next: Config | None = None  # read, and in force as soon as its interpreters have been looked at
        self._slow: frozenset[str] = frozenset()  # interpreters that the kernel has not opened yet
        self._verified_at = float("-inf")  # when interpreters were last looked at while no events were read
        self._arrived_at = float("-inf")  # when an interpreter was last installed

    def keep(self) -> None:
        """Keep facts about the interpreters of the config in force, and of one that is about to be."""
        configs = [self._reconciler.config, *([] if self._next is None else [self._next])]
        self._interpreters.keep(path for config in configs for path in paths_of(config))

    def prepare(self, config: Config) -> bool:
        """Look at the interpreters of the next config, and at all others; return False if there is none to look at."""
        self._next = config
        self.keep()
        self._interpreters.look(everything=True)
        return self._interpreters.looking

    def take_prepared(self) -> Config | None:
        """Return the config that waited for its interpreters, once; None if none did."""
        config, self._next = self._next, None
        return config

    def read(self, events: PendingEvents) -> None:
        """Look at interpreters that these events name, or have the next pass do so."""
        now = time.monotonic()
        first = now - self._arrived_at >= _CALM
        if events.interpreter_installed:
            self._arrived_at = now
        if (events.interpreter_installed and first) or self._schedule.drifting():
            self._interpreters.look()
        self._schedule.look_later(now)

    def verify(self, now: float) -> None:
        """Look at all interpreters, once a second, while events about their files are not read."""
        if now - self._verified_at >= _VERIFIED and not self._interpreters.looking:
            self._verified_at = now
            self._interpreters.look(everything=True)

    def look_at_slow(self) -> None:
        """Look at interpreters that the kernel has not opened in time."""
        hanging = self._access.opens.hanging()
        if new := hanging - self._slow:
            self._interpreters.doubt(new)
        self._slow = hanging
