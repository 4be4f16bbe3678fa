"""The loop's one wait: for inotify, the mount table, signals, results of work in the background, and a deadline."""

import math
import select
import time

LONGEST_WORK = 60.0  # seconds from one wait to the next, at most; after more the loop counts as stuck
_LONGEST_WAIT = 86400.0  # seconds: epoll takes milliseconds in a C int, 24 days at most, and a pause may be longer


class Poller:
    """A wait until one of the descriptors is readable, or a deadline has come.

    ``back_at`` (monotonic, in seconds) is when the loop has come back for its next wait at the latest, unless it is
    stuck.

    The kernel reports a change of the mount table to one poll only (mounts_poll in fs/proc_namespace.c).  So what
    ``readable`` has found is kept for ``until``.
    """

    def __init__(self, *descriptors: int) -> None:
        self.back_at = time.monotonic() + LONGEST_WORK
        self._ready: dict[int, int] = {}  # found by ``readable``, for the next ``until``
        self._all = select.epoll(flags=select.EPOLL_CLOEXEC)
        self._always = select.epoll(flags=select.EPOLL_CLOEXEC)
        for descriptor in descriptors:
            self._always.register(descriptor, select.EPOLLIN)
            self.add(descriptor)

    def add(self, descriptor: int) -> None:
        """Wait for this descriptor as well, but not while the throttle is closed."""
        self._all.register(descriptor, select.EPOLLIN)

    def until(self, deadline: float, read_at: float = -math.inf) -> dict[int, int]:
        """Return the readable descriptors, with their events; none if ``deadline`` (monotonic, or infinity) has come.

        Also returns none after a day.
        Before ``read_at`` only the descriptors that the constructor was given count, and ``read_at`` itself is a
        deadline.
        """
        now = time.monotonic()
        throttled = now < read_at
        epoll, deadline = (self._always, min(deadline, read_at)) if throttled else (self._all, deadline)
        # epoll counts in milliseconds, and Python rounds up: it never returns early, so the loop does not spin.
        timeout = None if deadline == math.inf else max(0.0, min(deadline - now, _LONGEST_WAIT))
        ready, self._ready = self._ready, {}
        self.back_at = max(now, deadline) + LONGEST_WORK
        woken = epoll.poll(0.0 if ready else timeout)
        self.back_at = time.monotonic() + LONGEST_WORK
        return ready | dict(woken)

    def readable(self, read_at: float, but: int) -> bool:
        """Return True if ``until`` would return a descriptor at once, other than ``but``."""
        epoll = self._always if time.monotonic() < read_at else self._all
        self._ready |= epoll.poll(0)
        return any(descriptor != but for descriptor in self._ready)
