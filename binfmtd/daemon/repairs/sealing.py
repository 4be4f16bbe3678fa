"""``sealed = true``: between its own writes the daemon keeps the superblock of binfmt_misc read-only.

Another process can open it by ``mount -o remount,rw``.  The daemon notices that in the mount table, by the first write
(inotify), or after ten seconds (a remount in another mount namespace raises no event here).  It then seals the instance
again.  The kernel refuses that while a process has a file open for writing; so the daemon tries again when a file is
closed, and at growing intervals.

The status contains the state in which the superblock was last seen; each check compares the two.
"""

import time
from collections.abc import Callable
from contextlib import suppress

from binfmtd.daemon.background import Background
from binfmtd.daemon.reporting.reporter import Reporter
from binfmtd.errors import SealError
from binfmtd.kernel.mount import Mounted
from binfmtd.kernel.seal import LASTING, Seal, writers
from binfmtd.report.seal import BUSY, BY_ANOTHER, OFF, PAUSED, SEALED, SealStatus

_CHECK_SECONDS = 10.0  # from one check to the next
_FIRST_RETRY = 1.0  # seconds; doubles up to the above while it cannot be sealed
_WRITERS = "writers"  # key of the work in the background
_REMOUNTED = (
    "another process remounted binfmt_misc writable, and the daemon has sealed it again: run `binfmtd pause` before "
    "maintenance"
)
_NEVER = float("inf")


class Sealing:
    """The seal of the instance that the daemon is attached to."""

    def __init__(self, background: Background, report: Reporter) -> None:
        self.seal: Seal | None = None  # for a Writer; None: the instance is not held
        self.due_at = _NEVER  # monotonic, in seconds: when to check
        self._changed: Callable[[], None] = lambda: None
        self._background = background
        self._report = report
        self._wanted: bool | None = None
        self._paused = False
        self._status = OFF
        self._retry = _FIRST_RETRY
        self._scan_at = float("-inf")  # when to search again for processes that have files open
        self._given_up: tuple[int, int] | None = None  # the identity of an instance that cannot be sealed
        self._ended = False  # open for good

    def on_change(self, changed: Callable[[], None]) -> None:
        """Call this from now on when the status has changed."""
        self._changed = changed

    def retry(self) -> None:
        """Try again to seal an instance that could not be sealed: the config was read again, or `resync` is due."""
        self._given_up = None

    def use(self, mounted: Mounted | None, *, wanted: bool | None, paused: bool) -> bool:
        """Seal or open this instance, as config and pauses require; return True if another process had opened it.

        ``wanted`` as in Policy.  This applies to an instance that is held, but mounted nowhere now, as well.
        """
        if self._ended:  # results of threads still come in while the daemon publishes its end
            return False
        self._wanted, self._paused = wanted, paused
        try:
            if mounted is not None:
                self._take(mounted)
            if self.seal is None:
                self.due_at = _NEVER  # nothing is held that ``check`` could look at
            return self._bring()
        except SealError as error:
            self._failed(error, mounted)
            return False

    def check(self) -> bool:
        """Bring the superblock to the wanted state; return True if another process had opened the seal."""
        try:
            return self._bring()
        except SealError as error:
            self._failed(error, None)
            return False

    def seen(self, mounted: Mounted) -> Mounted:
        """Return the instance as the daemon sees it: it can write in spite of its seal, and through a freed mount."""
        opened = mounted.sealed and self._wanted is False and self._status == OFF
        if not (self.seal or opened):
            return mounted
        return mounted._replace(read_only=False, mount_read_only=False, sealed=False)

    def open_for_good(self) -> None:
        """Open the instance if we have sealed it, and release it: the daemon ends, and has removed its entries."""
        self._wanted, self._ended = None, True
        self.check()

    def _take(self, mounted: Mounted) -> None:
        """Hold this instance if that is needed; release any other."""
        if self.seal is not None and self.seal.identity != mounted.identity:
            self._release()
        if self.seal is not None:
            self.seal.free_mount(mounted)
        elif self._given_up == mounted.identity:
            return
        elif self._wanted or (self._wanted is False and mounted.sealed):
            self.seal = Seal(mounted)
        else:
            self._report_status(BY_ANOTHER if mounted.sealed else OFF)

    def _bring(self) -> bool:
        seal = self.seal
        if seal is None:
            return False
        if not self._wanted or self._paused:
            if seal.closed or seal.is_read_only():
                seal.open()
            self.due_at = _NEVER
            if not self._wanted:
                self._release()
            self._report_status(PAUSED if self._wanted else OFF, by_us=True)
            return False
        known = self._status == SEALED or self._status.state == "unsealed"
        if seal.closed and seal.is_read_only():
            self._is_sealed(seal)
            return False
        remounted = self._status == SEALED and not seal.left_open
        if not seal.close():
            self._is_busy(seal)
            return False
        self._is_sealed(seal)
        if remounted:
            self._report.unsealed(_REMOUNTED)
        return known

    def _is_sealed(self, seal: Seal) -> None:
        seal.left_open = False
        self._retry, self._scan_at = _FIRST_RETRY, float("-inf")
        self.due_at = time.monotonic() + _CHECK_SECONDS
        self._report_status(SEALED)

    def _is_busy(self, seal: Seal) -> None:
        """Report that a file is open for writing, and search for the processes, but not at each event."""
        if self._status.state != "unsealed":
            self._report_status(BUSY)
        now = time.monotonic()
        if now >= self.due_at or self.due_at > now + self._retry:
            self.due_at = now + self._retry
            self._retry = min(2 * self._retry, _CHECK_SECONDS)
        if now < self._scan_at:
            return
        if self._background.busy(_WRITERS):  # /proc does not answer
            self._report.unsealed(BUSY.reason)
            return
        self._scan_at = self.due_at
        device, entries = seal.device, list[str]()
        with suppress(OSError):
            entries = seal.names()

        def named(who: str) -> None:
            if seal is self.seal and self._status.state == "unsealed":
                self._report.unsealed(who)
                self._report_status(SealStatus("unsealed", who))

        self._background.run(_WRITERS, lambda: writers(device, entries), named)

    def _failed(self, error: SealError, mounted: Mounted | None) -> None:
        if error.errno in LASTING:
            held = mounted or self.seal
            self._given_up = held.identity if held else None
            self._release()
            self.due_at = _NEVER
        else:
            self.due_at = time.monotonic() + self._retry
            self._retry = min(2 * self._retry, _CHECK_SECONDS)
        if mounted is not None and mounted.sealed and not self._paused:
            why = f"another process sealed it; this daemon cannot change entries: {error}"
            self._report_status(SealStatus("sealed", why))
        else:
            self._report_status(SealStatus("impossible", str(error)))

    def _release(self) -> None:
        if self.seal is not None:
            self.seal.release()
            self.seal = None

    def _report_status(self, status: SealStatus, *, by_us: bool = False) -> None:
        if status != self._status:
            self._status = status
            why = "another process opened it"
            if by_us or self._wanted is not None or self.seal is not None:
                why = "the daemon stops" if self._ended else "the config does not ask for a seal"
            self._report.seal(status, why)
            self._changed()
