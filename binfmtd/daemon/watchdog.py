"""The service manager's watchdog: a ping at half its interval shows that the loop still runs.

The loop alone pings, after its one wait; no thread and no signal handler does.  So a pass or a read that never ends
prevents the next ping.  Source: sd_watchdog_enabled(3).
"""

import os
import re
import time

from binfmtd.daemon.sd_notify import Notifier


class Watchdog:
    """The pings.  ``due_at`` is the next one (monotonic, in seconds); infinity without a watchdog."""

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        # Taken out of the environment, since the watchdog does not concern our child processes.
        microseconds, pid = os.environ.pop("WATCHDOG_USEC", ""), os.environ.pop("WATCHDOG_PID", "")
        ours = pid in ("", str(os.getpid())) and re.fullmatch("[1-9][0-9]{0,19}", microseconds)
        self._interval = int(microseconds) / 1e6 / 2 if ours else float("inf")
        self.due_at = time.monotonic() + self._interval

    def ping(self, now: float) -> None:
        """Send a ping, and set the time of the next."""
        self._notifier.send("WATCHDOG=1")
        self.due_at = now + self._interval
