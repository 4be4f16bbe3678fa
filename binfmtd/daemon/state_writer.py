"""The files of the state directory, brought up to date by a thread: a disk that hangs must not delay a repair.

Each file takes note of its new content (``put``); one thread writes what has changed, and sees to it that the directory
and the lock are still there.  Content that was replaced before it was written is never written.
"""

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
        self._then: list[Callable[[], None]] = []

    def sync(self, then: Callable[[], None] | None = None) -> None:
        """Bring the files up to date; ``then`` is called in the loop when what they are to say now is written."""
        if then is not None:
            self._then.append(then)
        self._background.run(KEY, self._write, self._done)

    def _done(self, outcome: tuple[Written, list[Callable[[], None]]]) -> None:
        written, thens = outcome
        self._written(written)
        for then in thens:
            then()

    def _write(self) -> tuple[Written, list[Callable[[], None]]]:
        self._before()
        thens, self._then = self._then, []  # those that come from here on belong to the next round
        try:
            made_again = self._lock.keep()
        except StateError as error:
            return Written(problem=str(error)), thens
        for file in self._files:
            file.sync()
        return Written(made_again), thens
