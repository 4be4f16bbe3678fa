"""The one wait: inotify, the mount table, signals, and a deadline."""

import math
import select
import time


class Wait:
    """Sleeps until one of the descriptors is readable, or the time has come."""

    def __init__(self, *descriptors: int) -> None:
        self._epoll = select.epoll(flags=select.EPOLL_CLOEXEC)
        for descriptor in descriptors:
            self.add(descriptor)

    def add(self, descriptor: int) -> None:
        """Wait for this one as well."""
        self._epoll.register(descriptor, select.EPOLLIN)

    def until(self, deadline: float) -> set[int]:
        """The readable descriptors; none once ``deadline`` (monotonic, in seconds, maybe infinite) is over."""
        if deadline == math.inf:
            return {descriptor for descriptor, _ in self._epoll.poll()}
        # epoll counts in milliseconds, and Python rounds up: never early, so no spinning.
        return {descriptor for descriptor, _ in self._epoll.poll(max(0.0, deadline - time.monotonic()))}
