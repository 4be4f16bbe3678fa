"""A descriptor that wakes the loop when the mount table changes.

The file of the mount table polls as EPOLLERR | EPOLLPRI after a change, and always as readable
(proc_pid_mountinfo(5); fs/proc_namespace.c, mounts_poll).  So it gets its own epoll, whose descriptor is readable only
after a change.
"""

import os
import select
import time

from binfmtd.formats.mountinfo import parse_mountinfo
from binfmtd.kernel.mount import MOUNT_TABLE

LEAST_REST = 20  # the rest after a look, as a multiple of the time that the look took


class MountWatcher:
    """The mount table; ``descriptor`` is readable after any mount, unmount or remount in this mount namespace.

    Container hosts mount all day long.  After a change one look is due, at ``due_at``.  The next look is due only after
    a rest of LEAST_REST times the length of the last one, so the looks take a twentieth of a core at most.
    """

    def __init__(self) -> None:
        self.due_at = float("inf")  # monotonic, in seconds
        self._rested_at = float("-inf")
        self._file = os.open(MOUNT_TABLE, os.O_RDONLY | os.O_CLOEXEC)
        self._epoll = select.epoll(flags=select.EPOLL_CLOEXEC)
        self._epoll.register(self._file, select.EPOLLPRI | select.EPOLLERR)
        self.descriptor = self._epoll.fileno()

    def has(self, device: int) -> bool:
        """Return True if the file system of this device number is mounted in the namespace in which this was made.

        The file shows that one, also after this process has entered another one (fs/proc_namespace.c, mounts_open).
        """
        os.lseek(self._file, 0, os.SEEK_SET)
        with open(self._file, "rb", closefd=False) as file:
            return any(os.makedev(*line.device) == device for line in parse_mountinfo(file.read()))

    def drain(self) -> None:
        """Consume the change by a poll, and set ``due_at``."""
        self._epoll.poll(0)
        self.due_at = min(self.due_at, max(time.monotonic(), self._rested_at))

    def begin(self) -> None:
        """Record that the look that was due begins."""
        self.due_at = float("inf")

    def looked(self, began: float) -> None:
        """Begin the rest after a look that ``began`` at this time (monotonic, in seconds)."""
        now = time.monotonic()
        self._rested_at = now + LEAST_REST * (now - began)
