"""The files of the state directory, written by a thread: a disk that hangs must not delay a repair.

Each file object keeps its new content (``put``).  One thread writes what has changed, and makes the directory and the
lock again if another program has removed them.  Content that was replaced before it was written is never written.

Work that must not begin before the files are written waits for them, but begins without them when the disk takes too
long.
"""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from binfmtd.daemon.background import Background
from binfmtd.daemon.state_files.state_dir import Lock
from binfmtd.errors import StateError

KEY = "state directory"
FIRST_PAUSE = 1.0  # seconds until what could not be written is tried again; it doubles
LONGEST_PAUSE = 60.0  # seconds
_NEVER = float("inf")


class StateFile(Protocol):
    """A file that keeps its new content until it is written."""

    def sync(self) -> bool:
        """Write the content if it has changed or the file is missing; return False if that failed."""


class Written(NamedTuple):
    """The result of one round."""

    made_again: bool = False  # another program had removed the directory or the lock
    failed: bool = False  # a file could not be written
    problem: str | None = None  # why the directory cannot be made again


class _Waiting:
    """Work that waits for the files, until ``by`` (monotonic, in seconds)."""

    __slots__ = ("begin", "by")

    def __init__(self, begin: Callable[[], None], by: float) -> None:
        self.begin = begin
        self.by = by


class StateWriter:
    """A writer of the files in the background, one round after the other."""

    def __init__(
        self,
        background: Background,
        lock: Lock,
        files: Sequence[StateFile],
        written: Callable[[Written], None],
        before: Callable[[], object] = lambda: None,
    ) -> None:
        """Call ``written`` in the loop after each round, and ``before`` in the thread at its beginning."""
        self._before = before
        self._background = background
        self._lock = lock
        self._files = files
        self._written = written
        self._next: list[_Waiting] = []  # work for a round that has not begun
        self._waiting: list[_Waiting] = []  # all work that has not begun
        self._retry_at = _NEVER
        self._pause = FIRST_PAUSE

    def sync(self, then: Callable[[], None] | None = None, within: float = float("inf")) -> None:
        """Write the files in the background.

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
        """When the next waiting work begins without its files, or writing is tried again (monotonic, in seconds)."""
        return min(self._retry_at, *(work.by for work in self._waiting), _NEVER)

    def begin_overdue(self, now: float) -> None:
        """Begin the work that has waited for long enough, and try again to write what could not be written."""
        if now >= self._retry_at:
            self._retry_at = _NEVER
            self.sync()
        for work in [work for work in self._waiting if now >= work.by]:
            self._begin(work)

    def _begin(self, waiting: _Waiting) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)
            waiting.begin()

    def _done(self, outcome: tuple[Written, list[_Waiting]]) -> None:
        written, waiting = outcome
        if written.failed or written.problem is not None:
            self._retry_at = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        else:
            self._retry_at, self._pause = _NEVER, FIRST_PAUSE
        self._written(written)
        for work in waiting:
            self._begin(work)

    def _write(self) -> tuple[Written, list[_Waiting]]:
        self._before()
        waiting, self._next = self._next, []  # work that comes from here on belongs to the next round
        try:
            made_again = self._lock.keep()
        except StateError as error:
            return Written(problem=str(error)), waiting
        written = [file.sync() for file in self._files]  # each of them, also after one has failed
        return Written(made_again, not all(written)), waiting
