"""The instance that the daemon is attached to, and the watch on it.

Normally inotify events cause the daemon's looks at binfmt_misc.  In three cases looks at intervals replace the events:

* The kernel has no inotify instance or watch left (fs.inotify.max_user_instances, max_user_watches).  Each look tries
  again to get one.
* Something failed that may succeed later without an event (Again.LATER): no descriptor, no memory, a refusal by a
  security module.
* binfmt_misc is read-only.  The host may end that in a mount namespace that we do not see.

The interval is 1 s.  In the last two cases each failure doubles it, up to 10 s; a pass without a failure sets it to
1 s again.  The looks take at most a twentieth of a core.

If the host unmounts an instance that is bound into a container, the container keeps the instance.  Programs still run,
and all entries end with the container.  The kernel reports this only in the mount table, where the bound mount loses
its ``master``.  No poll wakes for that, so the next look finds it.
"""

import errno
import time

from binfmtd.daemon.poller import Poller
from binfmtd.daemon.watches.inotify import InotifyWatcher
from binfmtd.daemon.watches.mount_watcher import LEAST_REST
from binfmtd.errors import Again, BinfmtdError, MountError, WriteRefusedError
from binfmtd.host.kernel_module import DEFAULT_DIRECTORY
from binfmtd.kernel.mount import Mounted, Where, does_not_answer, find_or_mount, find_to_look, is_sealed
from binfmtd.kernel.seal import how_to_open

UNWATCHED_SECONDS = 1.0
LONGEST_SECONDS = 10.0


class InstanceWatch:
    """The mounted instance, if any, and when the daemon has to look at it without an event."""

    def __init__(self, where: Where, watch: InotifyWatcher, wait: Poller) -> None:
        """Attach to nothing yet; ``where`` binfmt_misc is, or is to be mounted."""
        self.mounted: Mounted | None = None
        self.unbroken = False  # True if the watch has been on the attached instance since an earlier ``attach``
        self._where = where
        self._watch = watch
        self._wait = wait
        self._began = self._ended = float("-inf")
        self._refused = False  # a write was refused with EROFS
        self._short = False  # something failed that may succeed later without an event
        self._pause = UNWATCHED_SECONDS
        self._followed: tuple[int, int] | None = None  # the identity of the instance whose mount followed the host's

    def begin(self) -> None:
        """Begin a look: the search for the mount and a full pass; ``looked`` ends it.  See ``look_at``."""
        self._began = time.monotonic()
        self._pause = min(2 * self._pause, LONGEST_SECONDS) if self._impaired else UNWATCHED_SECONDS
        self._short = self._refused = False
        self.open_watch()

    def open_watch(self) -> None:
        """Open inotify if it is not open, and have the loop wait for it."""
        if (opened := self._watch.open()) is not None:
            self._wait.add(opened)

    def find(self) -> Mounted | MountError:
        """Find the instance, or mount it; return the MountError if that fails.

        It may block, so a thread calls it.  It does not change this object.
        """
        try:
            return find_or_mount(self._where)
        except MountError as error:
            return error

    def find_only(self) -> Mounted | MountError:
        """Find the instance with ``find_to_look``, for a command that only reads; return a MountError if it fails."""
        try:
            return find_to_look(self._where.directory)
        except MountError as error:
            return error

    def attach(self, result: Mounted | MountError) -> bool:
        """Watch the instance that was found, before a pass reads it.

        Return True if it is another instance than before, or the watch is new, or none could be reached before.
        Raises the MountError if no instance was found.  The watch stays, since a mount may only cover the instance.
        """
        before = self.mounted
        if isinstance(result, MountError):
            self.mounted = None
            self.failed(result)
            raise result
        self.mounted = self._compared(result)
        is_another = before is None or before.identity != result.identity
        is_new = self._watch.watch_instance(result.directory)
        self.unbroken = self._watch.watches_instance and not is_new
        return is_another or is_new

    def does_not_answer(self) -> MountError | None:
        """Return the error of a search that waits for an automount at our instance's place, else None."""
        return does_not_answer(self._where.directory if self.mounted is None else self.mounted.directory)

    def regard_as(self, mounted: Mounted | None) -> None:
        """Regard the instance as this: its seal has changed."""
        self.mounted = mounted

    def _compared(self, mounted: Mounted) -> Mounted:
        """Return ``mounted``, with ``host_unmounted`` if it followed the host's mount before and no longer does."""
        if mounted.follows:
            self._followed = mounted.identity
        return mounted._replace(host_unmounted=not mounted.follows and mounted.identity == self._followed)

    def failed(self, error: BinfmtdError) -> None:
        """Take in the error of a look or of a write.  After EROFS the mount counts as read-only.

        A sealed instance may have been opened since the write; the next look finds that out.
        """
        self._short |= error.again is Again.LATER
        if self.mounted is not None and isinstance(error, WriteRefusedError) and error.errno == errno.EROFS:
            self._refused = True
            sealed = self.mounted.sealed or is_sealed(self.mounted)
            self.mounted = self.mounted._replace(read_only=True, sealed=sealed)

    def looked(self) -> None:
        """Record that the look has ended."""
        self._ended = time.monotonic()

    def reconciled(self) -> None:
        """Record that a pass has ended; if nothing has failed, the interval between looks is the shortest again."""
        if not self._impaired:
            self._pause = UNWATCHED_SECONDS

    def look_at(self, resync: float) -> float:
        """Return when to look again without an event, after ``resync`` seconds at the latest; monotonic, in seconds."""
        if not self.looks_instead:
            return self._began + resync
        took = max(0.0, self._ended - self._began)
        pause = UNWATCHED_SECONDS if self._watch.exhausted else self._pause
        return self._began + took + min(resync, max(pause, LEAST_REST * took))

    @property
    def looks_instead(self) -> bool:
        """True if looks at intervals replace the events."""
        return self._watch.exhausted is not None or self._impaired

    @property
    def _impaired(self) -> bool:
        return self._short or (self.mounted is not None and self.mounted.read_only)

    @property
    def problem(self) -> str | None:
        """The reason why the daemon cannot do its work as it should; None if it can."""
        if self.mounted is not None and self.mounted.sealed:
            # Entries serve, and need no repair as long as no program can change them.
            if self._refused:
                return f"{self.mounted.directory}: {how_to_open(self.mounted.directory)}"
        elif self.mounted is not None and self.mounted.read_only:
            where = self.mounted.directory
            return f"{where} is mounted read-only: run `mount -o remount,bind,rw {where}`"
        if self.mounted is not None and self.mounted.host_unmounted:
            return (
                f"{self.mounted.directory}: the host has unmounted binfmt_misc, so all entries vanish when this "
                f"container ends: run `mount -t binfmt_misc binfmt_misc {DEFAULT_DIRECTORY}` on the host to keep them, "
                "then restart this container"
            )
        if self._watch.exhausted:
            return f"{self._watch.exhausted}; until then the daemon checks binfmt_misc about once a second"
        return None
