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
    """Calls with a time limit of ``seconds`` each.

    On a busy machine a new thread may wait for a core for longer than that, which is no sign of a file system that
    hangs.  Then the limit is ``starting`` seconds longer.

    While a call with some ``key`` is blocked, another call with that key returns its default immediately.
    """

    def __init__(self, seconds: float, starting: float = 0.0) -> None:
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
        ended = _thread.allocate_lock()
        ended.acquire()
        results: list[Result[T]] = []
        begun = False

        def thread() -> None:
            nonlocal begun
            begun = True
            begin_thread()
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
        if not ended.acquire(timeout=self.seconds) and (begun or not ended.acquire(timeout=self._starting)):
            return otherwise
        return results[0].get()
