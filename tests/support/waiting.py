"""The ways to wait in tests: for a condition, or for inotify events.  Both have a deadline; nothing else may sleep.

Deadlines are written for an ordinary machine; BINFMTD_TEST_SLOWNESS is the factor by which this one is slower.
"""

import ctypes
import os
import select
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from support import Closing

T = TypeVar("T")

IN_MODIFY = 0x2
IN_CLOSE_WRITE = 0x8
IN_OPEN = 0x20
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_UNMOUNT = 0x2000
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000

FIRST_PAUSE_SECONDS = 0.002
LONGEST_PAUSE_SECONDS = 0.1
ATTEMPTS = 5
SLOWNESS = float(os.environ.get("BINFMTD_TEST_SLOWNESS", "1"))


def deadline_in(seconds: float) -> float:
    """Return the moment of ``time.monotonic()`` when that time of an ordinary machine has passed."""
    return time.monotonic() + seconds * SLOWNESS


def wait_until(condition: Callable[[], T], deadline_seconds: float = 10, what: str = "a condition") -> T:
    """Call ``condition`` until its result is true, and return that; AssertionError with ``what`` after the deadline.

    The last call begins after the deadline, also if this process was held up for longer than that.

    FileNotFoundError counts as not true: a replaced entry is missing for a moment, between its removal and its
    registration.  A lookup of a missing entry takes the directory's lock each time: fine in a test, wrong in a
    benchmark.
    """
    deadline = deadline_in(deadline_seconds)
    pause = FIRST_PAUSE_SECONDS
    while True:
        last = time.monotonic() >= deadline
        answer: T | FileNotFoundError
        try:
            if answer := condition():
                return answer
        except FileNotFoundError as missing:
            answer = missing
        if last:
            raise AssertionError(f"not within {deadline_seconds * SLOWNESS:g} s: {what} (last answer: {answer!r})")
        time.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE_SECONDS)


def check_in_time(
    seconds: float,
    begin: Callable[[], object],
    condition: Callable[[], object],
    check: Callable[[], object] = lambda: None,
    again: Callable[[], object] = lambda: None,
    what: str = "a condition",
) -> None:
    """Call ``begin``, wait for the condition, and call ``check`` while it lasts, which is ``seconds`` at least.

    A busy machine may hold this process up for longer than that.  So if two looks are too far from each other, or
    ``check`` fails after that time, the attempt says nothing: ``again`` is called, and another one is made.

    Raises AssertionError if the condition does not come to be, if ``check`` fails in time, or after ATTEMPTS attempts.
    """
    for _ in range(ATTEMPTS):
        deadline = deadline_in(10)
        not_before = time.monotonic()  # when the condition came to be
        begin()
        while True:
            looked = time.monotonic()
            seen = _holds(condition)
            late = time.monotonic() >= not_before + seconds
            if seen or late:
                break
            assert looked < deadline, f"not within {10 * SLOWNESS:g} s: {what}"
            not_before = looked
            time.sleep(FIRST_PAUSE_SECONDS)
        if seen:
            try:
                check()
            except (AssertionError, FileNotFoundError):
                if time.monotonic() < not_before + seconds:
                    raise
            else:
                return
        again()
    raise AssertionError(f"this process was too slow in {ATTEMPTS} attempts: {what}")


def _holds(condition: Callable[[], object]) -> bool:
    try:
        return bool(condition())
    except FileNotFoundError:
        return False


@dataclass(frozen=True, slots=True)
class Event:
    """One inotify event: its mask, and the name it is about ("" for the directory itself)."""

    mask: int
    name: str


class DirectoryWatch(Closing):
    """An inotify watch on one directory, armed when made; without pyinotify, which is under test."""

    def __init__(self, directory: Path, mask: int = IN_MODIFY | IN_CLOSE_WRITE | IN_CREATE | IN_DELETE) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor: int = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._descriptor < 0 or libc.inotify_add_watch(self._descriptor, os.fsencode(directory), mask) < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(directory))

    def close(self) -> None:
        """Close the watch."""
        os.close(self._descriptor)

    def fileno(self) -> int:
        """Return the descriptor, for select."""
        return self._descriptor

    def pending(self) -> list[Event]:
        """Return the events since the last call, without waiting."""
        events: list[Event] = []
        while True:
            try:
                data = os.read(self._descriptor, 65536)
            except BlockingIOError:
                return events
            while data:
                _, mask, _, length = struct.unpack_from("iIII", data)
                name, data = data[16 : 16 + length], data[16 + length :]
                events.append(Event(mask, name.rstrip(b"\0").decode("utf-8", "surrogateescape")))

    def wait_for(
        self, wanted: Callable[[Event], object], deadline_seconds: float = 10, what: str = "an event"
    ) -> Event:
        """Return the first event that is wanted, and drop those before it; AssertionError after the deadline."""
        deadline = deadline_in(deadline_seconds)
        seen: list[Event] = []
        while True:
            remaining = deadline - time.monotonic()  # before the events are read: see wait_until
            for event in self.pending():
                if wanted(event):
                    return event
                seen.append(event)
            if remaining <= 0:
                raise AssertionError(f"not within {deadline_seconds * SLOWNESS:g} s: {what} (came: {seen})")
            select.select([self._descriptor], [], [], remaining)
