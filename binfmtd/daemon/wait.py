"""The one wait: inotify, the mount table, signals, results of work in the background, and a deadline."""

import math
import select
import time

LONGEST_WORK = 60.0  # seconds from one wait to the next, however much there is to do; else something is stuck


class Wait:
    """Sleeps until one of the descriptors is readable, or the time has come.

    ``back_at`` (monotonic, in seconds) is when whoever waits has come back for the next wait, if all is well.
    """

    def __init__(self, *descriptors: int) -> None:
        self.back_at = time.monotonic() + LONGEST_WORK
        self._all = select.epoll(flags=select.EPOLL_CLOEXEC)
        self._always = select.epoll(flags=select.EPOLL_CLOEXEC)
        for descriptor in descriptors:
            self._always.register(descriptor, select.EPOLLIN)
            self.add(descriptor)

    def add(self, descriptor: int) -> None:
        """Wait for this one as well, but not during a storm."""
        self._all.register(descriptor, select.EPOLLIN)

    def until(self, deadline: float, listen_at: float = -math.inf) -> dict[int, int]:
        """The readable descriptors, with their events; none once ``deadline`` (monotonic, maybe infinite) is over.

        Before ``listen_at`` only those count that a storm does not concern, and when it comes it is a deadline.
        """
        now = time.monotonic()
        storming = now < listen_at
        epoll, deadline = (self._always, min(deadline, listen_at)) if storming else (self._all, deadline)
        # epoll counts in milliseconds, and Python rounds up: never early, so no spinning.
        timeout = None if deadline == math.inf else max(0.0, deadline - now)
        self.back_at = deadline + LONGEST_WORK
        woken = epoll.poll(timeout)
        self.back_at = time.monotonic() + LONGEST_WORK
        return dict(woken)
