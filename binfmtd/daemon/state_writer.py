"""The files of the state directory, brought up to date by a thread: a disk that hangs must not delay a repair.

Each file takes note of its new content (``put``); one thread writes what has changed, and sees to it that the directory
and the lock are still there.  Content that was replaced before it was written is never written.

What must not begin before its files are written waits for them, and begins without them when the disk takes too long.
"""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from binfmtd.daemon.background import Background
from binfmtd.daemon.state_dir import Lock
from binfmtd.errors import StateError

KEY = "state directory"


class StateFile(Protocol):
    """A file with new content."""

    def sync(self) -> bool:
        """Write it if it has changed or is missing; False if that failed."""


class Written(NamedTuple):
    """What came of it."""

    made_again: bool = False  # another program had removed the directory or the lock
    problem: str | None = None  # why the directory cannot be made again


class _Waiting:
    """Work that waits for the files, until ``by`` (monotonic, in seconds)."""

    __slots__ = ("begin", "by")

    def __init__(self, begin: Callable[[], None], by: float) -> None:
        self.begin = begin
        self.by = by


class StateWriter:
    """Writes the files in the background, one round after the other."""

    def __init__(
        self,
        background: Background,
        lock: Lock,
        files: Sequence[StateFile],
        written: Callable[[Written], None],
        before: Callable[[], object] = lambda: None,
    ) -> None:
        """``written`` is called in the loop after each round, ``before`` in the thread at its beginning."""
        self._before = before
        self._background = background
        self._lock = lock
        self._files = files
        self._written = written
        self._next: list[_Waiting] = []  # for a round that has not begun
        self._waiting: list[_Waiting] = []  # all that has not begun

    def sync(self, then: Callable[[], None] | None = None, within: float = float("inf")) -> None:
        """Bring the files up to date.

        ``then`` is called once, in the loop: when the content of this moment is written or could not be written, or
        after ``within`` seconds.
        """
        if then is not None:
            waiting = _Waiting(then, time.monotonic() + within)
            self._waiting.append(waiting)
            self._next.append(waiting)
        self._background.run(KEY, self._write, self._done)

    @property
    def due_at(self) -> float:
        """When something that waits begins without its files; monotonic, in seconds."""
        return min((each.by for each in self._waiting), default=float("inf"))

    def begin_overdue(self, now: float) -> None:
        """Begin what has waited for long enough."""
        for each in [each for each in self._waiting if now >= each.by]:
            self._begin(each)

    def _begin(self, waiting: _Waiting) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)
            waiting.begin()

    def _done(self, outcome: tuple[Written, list[_Waiting]]) -> None:
        written, waiting = outcome
        self._written(written)
        for each in waiting:
            self._begin(each)

    def _write(self) -> tuple[Written, list[_Waiting]]:
        self._before()
        waiting, self._next = self._next, []  # those that come from here on belong to the next round
        try:
            made_again = self._lock.keep()
        except StateError as error:
            return Written(problem=str(error)), waiting
        for file in self._files:
            file.sync()
        return Written(made_again), waiting
