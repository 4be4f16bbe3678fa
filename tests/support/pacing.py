"""Disturb one entry as often as possible without contention (daemon/entries/backoff.py)."""

import time
from collections import deque

from binfmtd.daemon.entries.backoff import REPAIRS, WINDOW


class BelowContention:
    """The times of the last repairs of one entry; once the daemon backs off, a repair may take half a minute."""

    def __init__(self) -> None:
        self._repairs: deque[float] = deque(maxlen=REPAIRS - 1)

    def wait(self) -> None:
        """Return when one more repair is not the tenth within ten seconds."""
        if len(self._repairs) == self._repairs.maxlen:
            time.sleep(max(0.0, self._repairs[0] + WINDOW - time.monotonic()))

    def repaired(self) -> None:
        """Note that a repair has ended."""
        self._repairs.append(time.monotonic())
