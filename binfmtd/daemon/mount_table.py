"""Waking when the mount table changes.

Source: proc_pid_mountinfo(5), fs/proc_namespace.c (mounts_poll): the file polls as EPOLLERR | EPOLLPRI after a change,
and as readable always; so it gets an epoll of its own, whose descriptor is readable only after a change.
"""

import os
import select
import time

from binfmtd.kernel.mount import MOUNT_TABLE

LEAST_REST = 20  # a look that nobody needed is followed by a rest of so many times its length


class MountTable:
    """``descriptor`` becomes readable when anything is mounted, unmounted or remounted in this mount namespace.

    Container hosts mount all day long.  A change calls for a look, ``due_at`` once, and for no second one until the
    first was rested from: so all of them together take a twentieth of a core at most.
    """

    def __init__(self) -> None:
        self.due_at = float("inf")  # monotonic, in seconds
        self._rested_at = float("-inf")
        self._file = os.open(MOUNT_TABLE, os.O_RDONLY | os.O_CLOEXEC)
        self._epoll = select.epoll(flags=select.EPOLL_CLOEXEC)
        self._epoll.register(self._file, select.EPOLLPRI | select.EPOLLERR)
        self.descriptor = self._epoll.fileno()

    def drain(self) -> None:
        """Take note of the change: the poll itself consumes it."""
        self._epoll.poll(0)
        self.due_at = min(self.due_at, max(time.monotonic(), self._rested_at))

    def looked(self, began: float) -> None:
        """The look that a change may have called for is over; it began then."""
        now = time.monotonic()
        self._rested_at = now + LEAST_REST * (now - began)
