"""The textfile for node_exporter, written by a thread of its own: a disk that hangs must not delay repairs.

It is replaced when there is a new snapshot, once a second at most.  It is removed when the daemon ends: otherwise it
would report for ever that all is well.
"""

import os
import threading
from collections.abc import Callable
from contextlib import suppress

from binfmtd.daemon.preload import cannot_load
from binfmtd.files.atomic import write_atomically
from binfmtd.host.scheduling import begin_thread
from binfmtd.report.snapshot import Snapshot

_REST = 1.0  # seconds from one write to the next
_PATIENCE = 0.5  # seconds that the daemon's end waits for a disk


class Textfile:
    """A thread that keeps ``path`` in step with the newest snapshot."""

    def __init__(self, path: str, failed: Callable[[str], None]) -> None:
        """Start the thread, which calls ``failed`` with each new reason why the file cannot be written."""
        self._path = path
        self._failed = failed
        self._snapshot: Snapshot | None = None
        self._problem: str | None = None
        self._new = threading.Event()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="textfile", daemon=True)
        self._thread.start()

    def show(self, snapshot: Snapshot) -> None:
        """Have the thread write this snapshot; never waits."""
        self._snapshot = snapshot
        self._new.set()

    def close(self) -> None:
        """Have the thread remove the file and end; waits half a second at most."""
        self._end.set()
        self._new.set()
        self._thread.join(_PATIENCE)

    def _keep(self) -> None:
        begin_thread()
        while self._new.wait() and not self._end.is_set():
            self._new.clear()
            self._write()
            self._end.wait(_REST)
        with suppress(OSError):
            os.unlink(self._path)

    def _write(self) -> None:
        problem = None
        try:
            if self._snapshot is not None:
                write_atomically(self._path, self._snapshot.metrics)
        except OSError as error:
            problem = (
                f'[metrics] textfile = "{self._path}": {error.strerror}; the daemon tries again when the status changes'
            )
        except ImportError as error:
            problem = f"[metrics] textfile: {cannot_load(error)}"
        if problem is not None and problem != self._problem:
            self._failed(problem)
        self._problem = problem
