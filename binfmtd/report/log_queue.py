"""The daemon's log lines on their way to stderr: a bounded queue, and a thread that writes.

A reader may stop reading: a pipe that is full, or the socket of a stopped journald, blocks write(2) for as long as that
lasts.  Only the thread waits then.  When the queue is full, new lines are dropped and counted.  When the reader has
caught up, one line says how many were dropped.
"""

import os
import select
import time
from collections.abc import Callable
from queue import SimpleQueue
from threading import Lock, Thread

LINES = 1000  # most lines that wait; with an ordinary line of 300 bytes that is 0.3 MB
_NAP = 0.005


class LogQueue:
    """A queue of lines, which its thread writes to a descriptor; any thread may ``put``."""

    def __init__(self, descriptor: int, dropped: Callable[[int], object]) -> None:
        """Call ``dropped`` with the number of lost lines, once lines can be written again."""
        self._descriptor = descriptor
        self._report = dropped
        self._lines: SimpleQueue[bytes] = SimpleQueue()
        self._lock = Lock()  # held for a few instructions, never during a write
        self._thread: Thread | None = None
        self._waiting = 0  # lines that are not written yet
        self._reported = 0
        self.dropped = 0  # lines, since the start

    def put(self, line: str) -> None:
        """Have this line, given without its newline, written as soon as the reader takes it.  Never waits.

        If the queue is full, the line is dropped.
        """
        with self._lock:
            if self._waiting >= LINES:
                self.dropped += 1
                return
            self._waiting += 1
        self._lines.put(f"{line}\n".encode("utf-8", "backslashreplace"))
        if self._thread is None:
            self._start()

    def flush(self, seconds: float) -> bool:
        """Wait until all lines are written; return False if that takes longer than ``seconds``."""
        end = time.monotonic() + seconds
        while self._waiting:
            if time.monotonic() >= end:
                return False
            time.sleep(_NAP)
        return True

    def _start(self) -> None:
        self._thread = Thread(target=self._write_all, name="log", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the limit of threads is reached: the next line tries again
            self._thread = None

    def _write_all(self) -> None:
        while True:
            written = self._write(self._lines.get())
            with self._lock:
                self._waiting -= 1
                self.dropped += not written
                lost = self.dropped - self._reported if written and not self._waiting else 0
                self._reported += lost
            if lost:
                self._report(lost)

    def _write(self, line: bytes) -> bool:
        """Return True if the line was written; the reader may have ended, or its disk may be full."""
        rest = memoryview(line)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:  # another process that shares it has made it non-blocking
                waiting = select.poll()
                waiting.register(self._descriptor, select.POLLOUT)
                waiting.poll()
            except OSError:
                return False
        return True
