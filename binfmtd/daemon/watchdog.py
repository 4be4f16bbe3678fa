"""The service manager's watchdog: a ping at half its interval says that the loop still goes round.

The loop alone pings, when its one wait is over, and nothing else does (no thread, no signal): whatever is stuck, a pass
or a read that never ends, is stuck before the next ping.  Source: sd_watchdog_enabled(3).
"""

import os
import re
import time

from binfmtd.daemon.notify import Notifier


class Watchdog:
    """``due_at`` is the next ping: monotonic, in seconds; infinite where nobody watches."""

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        # Taken out of the environment, as no child of ours is watched.
        microseconds, pid = os.environ.pop("WATCHDOG_USEC", ""), os.environ.pop("WATCHDOG_PID", "")
        ours = pid in ("", str(os.getpid())) and re.fullmatch("[1-9][0-9]{0,19}", microseconds)
        self._interval = int(microseconds) / 1e6 / 2 if ours else float("inf")
        self.due_at = time.monotonic() + self._interval

    def ping(self, now: float) -> None:
        """Say that we are alive."""
        self._notifier.send("WATCHDOG=1")
        self.due_at = now + self._interval
