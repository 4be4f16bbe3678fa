"""``sealed = true``: between its own writes the daemon keeps the superblock of binfmt_misc read-only.

Another process can open it by ``mount -o remount,rw``.  The daemon notices that in the mount table, by the first write
(inotify), or after ten seconds (a remount in another mount namespace raises no event here), and seals it again.  It
cannot while a process has a file open for writing; then it tries again when a file is closed, and at growing intervals.
"""

import time
from collections.abc import Callable

from binfmtd.daemon.background import Background
from binfmtd.daemon.reporter import Reporter
from binfmtd.errors import SealError
from binfmtd.kernel.mount import Mounted
from binfmtd.kernel.seal import Seal, writers
from binfmtd.report.seal import BY_ANOTHER, OPEN, PAUSED, SealStatus

_CHECK_SECONDS = 10.0  # from one check to the next
_FIRST_RETRY = 1.0  # seconds; doubles to the above while a process has a file open
_WRITERS = "writers"  # the work in the background
_NEVER = float("inf")


class Sealing:
    """The seal of the instance that the daemon is attached to."""

    def __init__(self, background: Background, report: Reporter) -> None:
        self.seal: Seal | None = None  # for a Writer
        self.changed: Callable[[], None] = lambda: None  # the status is another one
        self.due_at = _NEVER  # monotonic, in seconds: when to check
        self._background = background
        self._report = report
        self._retry = _FIRST_RETRY
        self._status = OPEN

    def use(self, mounted: Mounted, *, wanted: bool | None, paused: bool) -> bool:
        """Seal this instance or open it, as the config and the pauses say; True if another process had opened it.

        ``wanted`` as in Policy.
        """
        try:
            if self.seal is not None and self.seal.device != mounted.device:
                self._release()
            if not wanted:
                self._open_for_good(mounted, by_anyone=wanted is False)
                return False
            if self.seal is None:
                self.seal = Seal(mounted)
            if paused:
                self.seal.open()
                self._now(PAUSED, _NEVER)
                return False
            if not self.seal.closed:
                self._close(self.seal)
                return False
            return self._check()
        except SealError as error:
            self._failed(error)
            return False

    def check(self) -> bool:
        """Seal it again if it is open; True if another process had opened it."""
        try:
            return self._check()
        except SealError as error:
            self._failed(error)
            self.changed()
            return False

    def _check(self) -> bool:
        seal = self.seal
        if seal is None or not seal.closed:
            return False
        if seal.is_read_only():
            if seal.busy:
                self._close(seal)
            else:
                self.due_at = time.monotonic() + _CHECK_SECONDS
            return False
        known = seal.busy
        self._close(seal)
        if seal.busy:
            return False
        if not known:
            self._report.unsealed()
        self.changed()
        return True

    def seen(self, found: Mounted) -> Mounted:
        """Return it as the daemon has to see it: writable if its own seal makes it read-only, or if it opened it."""
        if not found.sealed or (self.seal is None and self._status != OPEN):
            return found
        return found._replace(read_only=False, sealed=False)

    def open_for_good(self) -> None:
        """Open it, if it is sealed by us, and hold it no longer: the daemon ends, and its entries with it."""
        if self.seal is not None:
            try:
                self.seal.open()
            except SealError as error:
                self._report.seal(SealStatus("impossible", str(error)))
            self._release()

    def _open_for_good(self, mounted: Mounted, *, by_anyone: bool) -> None:
        if self.seal is None and by_anyone and mounted.sealed:
            self.seal = Seal(mounted)
        if self.seal is not None:
            self.seal.open()
            self._release()
            self._now(OPEN, _NEVER)
        else:
            self._now(BY_ANOTHER if mounted.sealed else OPEN, _NEVER)

    def _failed(self, error: SealError) -> None:
        self._release()
        self._now(SealStatus("impossible", str(error)), _NEVER)

    def _release(self) -> None:
        if self.seal is not None:
            self.seal.release()
            self.seal = None

    def _close(self, seal: Seal) -> None:
        if seal.close():
            self._retry = _FIRST_RETRY
            self._now(SealStatus("sealed"), time.monotonic() + _CHECK_SECONDS)
            return
        self.due_at = time.monotonic() + self._retry
        self._retry = min(2 * self._retry, _CHECK_SECONDS)
        device = seal.device

        def named(who: str) -> None:
            if seal is self.seal and seal.busy:
                self._report.seal(SealStatus("unsealed", who))
                self.changed()

        self._background.run(_WRITERS, lambda: writers(device), named)

    def _now(self, status: SealStatus, due_at: float) -> None:
        self._status, self.due_at = status, due_at
        self._report.seal(status)
