"""The loop's one wait: when it counts as stuck."""

import math
import os
import time
from collections.abc import Iterator

import pytest

from binfmtd.daemon.poller import LONGEST_WORK, Poller


@pytest.fixture
def descriptor() -> Iterator[int]:
    """Return a descriptor that is never readable by itself."""
    descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    yield descriptor
    os.close(descriptor)


class Recording(Poller):
    """A poller that records each value of ``back_at``."""

    def __setattr__(self, name: str, value: object) -> None:
        if name == "back_at":
            self.__dict__.setdefault("set", []).append(value)
        super().__setattr__(name, value)


@pytest.mark.parametrize("deadline", [-math.inf, 0.0])
def test_a_wait_that_does_not_wait(descriptor: int, deadline: float) -> None:
    """While a pass is under way the deadline is over already, and the loop does not count as stuck."""
    poller = Recording(descriptor)
    before = time.monotonic()
    assert poller.until(deadline) == {}
    assert min(poller.__dict__["set"]) >= before + LONGEST_WORK - 1.0


def test_a_deadline_in_ten_years(descriptor: int) -> None:
    """A deadline beyond what epoll can express, as the end of a long pause, is no error."""
    os.eventfd_write(descriptor, 1)
    assert descriptor in Poller(descriptor).until(time.monotonic() + 10 * 365 * 86400)


def test_readable(descriptor: int) -> None:
    """A descriptor counts unless it is excepted, and one that was added does not count while events are put off."""
    added = os.eventfd(1, os.EFD_CLOEXEC)
    poller = Poller(descriptor)
    poller.add(added)
    assert poller.readable(-math.inf, but=descriptor)
    assert not poller.readable(-math.inf, but=added)
    assert added in poller.until(-math.inf)
    assert not poller.readable(math.inf, but=descriptor)
    os.eventfd_write(descriptor, 1)
    assert poller.readable(math.inf, but=added)
    os.close(added)


def test_what_only_one_poll_finds(descriptor: int) -> None:
    """A change that the kernel reports once, and that ``readable`` has found, is in the next ``until``."""
    poller = Poller(descriptor)
    os.eventfd_write(descriptor, 1)
    assert poller.readable(-math.inf, but=-1)
    os.eventfd_read(descriptor)
    assert descriptor in poller.until(math.inf)
    assert poller.until(0.0) == {}
