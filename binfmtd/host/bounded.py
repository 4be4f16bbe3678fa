"""Calls that may block on a file system, each with a time limit.

The daemon's loop needs the results of some calls immediately, but a file system that does not answer would block it.
So a thread makes each call, and the loop waits for a limited time.  When that is over, the loop goes on with a default
result, and the thread stays blocked until the file system answers.
"""

import _thread
from collections.abc import Callable
from typing import Generic, TypeVar

from binfmtd.host.scheduling import begin_thread

T = TypeVar("T")


class Result(Generic[T]):
    """The value that a call returned, or the exception that it raised."""

    def __init__(self, work: Callable[[], T]) -> None:
        self.value: T | None = None
        self.error: BaseException | None = None
        try:
            self.value = work()
        except BaseException as error:  # noqa: BLE001  `get` raises it again, in the loop
            self.error = error

    def get(self) -> T:
        """Return the value.  Raises the exception that the call raised."""
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]  # None only if T includes it


class BoundedCalls:
    """Calls with a time limit of ``seconds`` each, from the moment when the thread runs.

    On a busy machine a new thread may wait for a core, which is no sign of a file system that hangs.  It has
    ``starting`` seconds for that, by default ``seconds`` as well.

    While a call with some ``key`` is blocked, another call with that key returns its default immediately.
    """

    def __init__(self, seconds: float, starting: float | None = None) -> None:
        self.seconds = seconds
        self._starting = starting
        self._hanging: set[str] = set()

    def hangs(self, key: str) -> bool:
        """Return True if a call with this key has not ended."""
        return key in self._hanging

    def hanging(self) -> frozenset[str]:
        """Return the keys of the calls that have not ended."""
        return frozenset(self._hanging)

    def call(self, key: str, work: Callable[[], T], otherwise: T, dropped: Callable[[], object] = lambda: None) -> T:
        """Return what ``work`` returns, or ``otherwise`` after the time limit.  Raises what ``work`` raises.

        Returns ``otherwise`` also if a call with this key is still blocked, or if no thread can be started.  In these
        two cases ``work`` is never called, and ``dropped`` is called instead.
        """
        if key in self._hanging:
            dropped()
            return otherwise
        begun, ended = _thread.allocate_lock(), _thread.allocate_lock()
        begun.acquire()
        ended.acquire()
        results: list[Result[T]] = []

        def thread() -> None:
            begin_thread()
            begun.release()
            results.append(Result(work))
            self._hanging.discard(key)
            ended.release()

        self._hanging.add(key)
        try:
            _thread.start_new_thread(thread, ())
        except RuntimeError:
            self._hanging.discard(key)
            dropped()
            return otherwise
        starting = self.seconds if self._starting is None else self._starting
        if begun.acquire(timeout=starting) and ended.acquire(timeout=self.seconds):
            return results[0].get()
        return otherwise
