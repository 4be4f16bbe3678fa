"""Calls whose result is needed at once, though a file system may not answer: each is waited for a short time."""

import _thread
from collections.abc import Callable
from typing import Generic, TypeVar

from binfmtd.kernel.scheduling import begin_thread

T = TypeVar("T")


class Result(Generic[T]):
    """What some work returned or raised."""

    def __init__(self, work: Callable[[], T]) -> None:
        self.value: T | None = None
        self.error: BaseException | None = None
        try:
            self.value = work()
        except BaseException as error:  # noqa: BLE001  it is raised again, in the loop
            self.error = error

    def get(self) -> T:
        """Return it, or raise it."""
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]  # None only where T has it


class BoundedCalls:
    """Calls that have to have a result at once, but may hang: each is waited for a short time only.

    While a call with some ``key`` hangs, another with that key is given up immediately.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._hanging: set[str] = set()

    def hangs(self, key: str) -> bool:
        """Tell if a call with this key has not ended."""
        return key in self._hanging

    def hanging(self) -> frozenset[str]:
        """Return the keys of the calls that have not ended."""
        return frozenset(self._hanging)

    def call(self, key: str, work: Callable[[], T], otherwise: T) -> T:
        """Return what ``work`` returns, or ``otherwise`` if it takes too long.  Raises what ``work`` raises."""
        if key in self._hanging:
            return otherwise
        ended = _thread.allocate_lock()
        ended.acquire()
        results: list[Result[T]] = []

        def thread() -> None:
            begin_thread()
            results.append(Result(work))
            self._hanging.discard(key)
            ended.release()

        self._hanging.add(key)
        try:
            _thread.start_new_thread(thread, ())
        except RuntimeError:
            self._hanging.discard(key)
            return otherwise
        if not ended.acquire(timeout=self.seconds):
            return otherwise
        return results[0].get()
