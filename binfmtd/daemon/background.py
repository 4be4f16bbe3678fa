"""Work that may block, done in threads: the loop starts it, and takes in the result later.

A disk hangs, no process reads the log, an interpreter's file system does not answer: each of these stops the thread
that waits for it.  None of them stops the loop, which makes the repairs.

* ``run`` does one piece of work of each ``key`` at a time.  A request that comes meanwhile waits, and a later request
  replaces it.  So a sink that hangs holds one thread and one request, however many requests come.
* ``deliver`` hands over results in the loop's thread; ``descriptor`` is readable while there are any.
* The threads end with the process, also those that hang.
"""

import _thread
import os
import select
import time
from collections import deque
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any, TypeVar

from binfmtd.host.bounded import Result
from binfmtd.host.scheduling import begin_thread

T = TypeVar("T")

_Work = Callable[[], Any]
_Then = Callable[[Any], None]
_AGAIN = 1.0  # seconds until the loop asks again for a thread that the kernel refused (RLIMIT_NPROC, no memory)


class Background:
    """The threads of the daemon.  A thread may call only ``post``; the loop calls everything else."""

    def __init__(self) -> None:
        self.descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.due_at = float("inf")  # monotonic, in seconds: when the loop calls ``retry``
        self.cpu_seconds: dict[str, float] = {}  # by key: the CPU time of all work that has ended
        self._results: deque[Callable[[], None]] = deque()
        self._running: set[str] = set()
        self._waiting: dict[str, tuple[_Work, _Then]] = {}

    def run(self, key: str, work: Callable[[], T], then: Callable[[T], None] = lambda _: None) -> None:
        """Do ``work`` in a thread, and then call ``then`` in the loop with its result.

        ``deliver`` raises an exception of ``work``.  So work that is expected to fail returns its error instead.
        """
        self._waiting[key] = (work, then)
        if key not in self._running:
            self._start(key)

    def busy(self, key: str) -> bool:
        """Return True if work of this key runs or waits."""
        return key in self._running or key in self._waiting

    def thread(self, work: Callable[[], None]) -> bool:
        """Do ``work`` in a new thread, which hands over results by ``post``; False if the kernel refuses a thread."""
        try:
            # Not threading.Thread: its start waits until the new thread runs, which a busy machine may delay.
            _thread.start_new_thread(self._guarded, (work,))
        except RuntimeError:
            return False
        return True

    def post(self, result: Callable[[], None]) -> None:
        """Have the loop call ``result`` in ``deliver``."""
        self._results.append(result)
        os.eventfd_write(self.descriptor, 1)

    def wait(self, seconds: float) -> None:
        """Wait until there is a result, for ``seconds`` at most."""
        select.select([self.descriptor], [], [], seconds)

    def deliver(self, until: Callable[[], bool] = lambda: False) -> None:
        """Call the results that are there, oldest first; those that come after ``until`` returns True stay there.

        Raises what their work or they themselves raise.
        """
        with suppress(BlockingIOError):
            os.eventfd_read(self.descriptor)
        try:
            for _ in range(len(self._results)):
                self._results.popleft()()
                if until():
                    break
        finally:
            if self._results:
                os.eventfd_write(self.descriptor, 1)

    def retry(self, _: float = 0.0) -> None:
        """Start the work for which the kernel refused a thread."""
        self.due_at = float("inf")
        for key in self._waiting.keys() - self._running:
            self._start(key)

    def finish(self, keys: Collection[str], seconds: float) -> bool:
        """Wait until the work of these keys has ended, and take in its results; False after ``seconds``."""
        end = time.monotonic() + seconds
        while any(self.busy(key) for key in keys):
            if (left := end - time.monotonic()) <= 0:
                return False
            self.wait(left)
            self.deliver()
        return True

    def _start(self, key: str) -> None:
        work, then = self._waiting[key]

        def call() -> None:
            began = time.thread_time()
            result = Result(work)
            cost = time.thread_time() - began
            self.post(lambda: self._ended(key, then, result, cost))

        if self.thread(call):
            del self._waiting[key]
            self._running.add(key)
        else:
            self.due_at = min(self.due_at, time.monotonic() + _AGAIN)

    def _ended(self, key: str, then: _Then, result: Result[Any], cost: float) -> None:
        self._running.discard(key)
        self.cpu_seconds[key] = self.cpu_seconds.get(key, 0.0) + cost
        if key in self._waiting:
            self._start(key)
        then(result.get())

    def _guarded(self, work: Callable[[], None]) -> None:
        begin_thread()
        outcome = Result(work)
        if outcome.error is not None:
            self.post(outcome.get)
