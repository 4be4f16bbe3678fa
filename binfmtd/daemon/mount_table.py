"""Waking when the mount table changes.

Source: proc_pid_mountinfo(5), fs/proc_namespace.c (mounts_poll): the file polls as EPOLLERR | EPOLLPRI after a change,
and as readable always; so it gets an epoll of its own, whose descriptor is readable only after a change.
"""

import os
import select

from binfmtd.kernel.mount import MOUNT_TABLE


class MountTable:
    """``descriptor`` becomes readable when anything is mounted, unmounted or remounted in this mount namespace."""

    def __init__(self) -> None:
        self._file = os.open(MOUNT_TABLE, os.O_RDONLY | os.O_CLOEXEC)
        self._epoll = select.epoll(flags=select.EPOLL_CLOEXEC)
        self._epoll.register(self._file, select.EPOLLPRI | select.EPOLLERR)
        self.descriptor = self._epoll.fileno()

    def drain(self) -> None:
        """Take note of the change: the poll itself consumes it."""
        self._epoll.poll(0)
