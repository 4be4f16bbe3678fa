"""What the daemon is attached to: the mounted instance, and the watch on it.

Where the kernel has no inotify left (fs.inotify.max_user_instances, max_user_watches), looks at intervals take the
place of events until it has some again: each tries anew, and takes at most a twentieth of a core.

So they do where something failed that may go better without an event (Again.LATER): no descriptor, no memory, a refusal
by a security module.  So they do while binfmt_misc is read-only, which the host may end in a mount namespace that we do
not see.  Each failure doubles the interval, from 1 s to 10 s.

A container that has the host's mount bound in keeps the instance when the host unmounts it: programs run on, and all
entries go when the container ends.  The kernel reports it only in the mount table, where the bound mount loses its
``master``, and no poll wakes for that: the next look finds it.
"""

import errno
import time

from binfmtd.daemon.mount_table import LEAST_REST
from binfmtd.daemon.wait import Wait
from binfmtd.daemon.watch import Watch
from binfmtd.errors import Again, BinfmtdError, MountError, WriteRefusedError
from binfmtd.kernel.module import DEFAULT_DIRECTORY
from binfmtd.kernel.mount import Mounted, Where, find_or_mount, find_to_look, is_sealed
from binfmtd.kernel.seal import how_to_open

UNWATCHED_SECONDS = 1.0
LONGEST_SECONDS = 10.0


class Attachment:
    """Where binfmt_misc is, and whether we hear of what happens there."""

    def __init__(self, where: Where, watch: Watch, wait: Wait) -> None:
        """``where`` it is, or is to be mounted."""
        self.mounted: Mounted | None = None
        self._where = where
        self._watch = watch
        self._wait = wait
        self._began = self._ended = float("-inf")
        self._refused = False  # a write was refused with EROFS
        self._short = False  # something failed that may go better without an event
        self._pause = UNWATCHED_SECONDS
        self._followed: int | None = None  # the device of the instance whose mount followed the host's

    def begin(self) -> None:
        """Begin a look at everything: see ``look_at``."""
        self._began = time.monotonic()
        self._pause = min(2 * self._pause, LONGEST_SECONDS) if self._impaired else UNWATCHED_SECONDS
        self._short = self._refused = False
        self.open_watch()

    def open_watch(self) -> None:
        """Open inotify if that has not succeeded yet."""
        if (opened := self._watch.open()) is not None:
            self._wait.add(opened)

    def find(self) -> Mounted | MountError:
        """Find the instance, or mount it.  May block, so it is called in a thread; changes nothing here."""
        try:
            return find_or_mount(self._where)
        except MountError as error:
            return error

    def find_only(self) -> Mounted | MountError:
        """The same for a command that only looks (``find_to_look``)."""
        try:
            return find_to_look(self._where.directory)
        except MountError as error:
            return error

    def attach(self, found: Mounted | MountError) -> bool:
        """Watch what was found, before it is looked at; True if it is another instance or newly watched.

        Raises the MountError if none was found.
        """
        before = self.mounted
        if isinstance(found, MountError):
            self.mounted = None
            self._watch.forget_instance()
            self.failed(found)
            raise found
        self.mounted = self._compared(found)
        return self._watch.watch_instance(found.directory) or self.mounted != before

    def _compared(self, found: Mounted) -> Mounted:
        """The same; ``host_unmounted`` if it followed the host's mount before, and does no more."""
        if found.follows:
            self._followed = found.device
        return found._replace(host_unmounted=not found.follows and found.device == self._followed)

    def failed(self, error: BinfmtdError) -> None:
        """A look could not be made, or something could not be written."""
        self._short |= error.again is Again.LATER
        if self.mounted is not None and isinstance(error, WriteRefusedError) and error.errno == errno.EROFS:
            self._refused = True
            self.mounted = self.mounted._replace(read_only=True, sealed=is_sealed(self.mounted))

    def looked(self) -> None:
        """The look that followed has been made."""
        self._ended = time.monotonic()

    def look_at(self, resync: float) -> float:
        """When to look again without any event, every ``resync`` seconds at the latest; monotonic, in seconds."""
        if not self.looks_instead:
            return self._began + resync
        took = max(0.0, self._ended - self._began)
        pause = UNWATCHED_SECONDS if self._watch.exhausted else self._pause
        return self._began + took + min(resync, max(pause, LEAST_REST * took))

    @property
    def looks_instead(self) -> bool:
        """Tell if looks at intervals take the place of events."""
        return self._watch.exhausted is not None or self._impaired

    @property
    def _impaired(self) -> bool:
        return self._short or (self.mounted is not None and self.mounted.read_only)

    @property
    def problem(self) -> str | None:
        """Why the daemon cannot do its work as it should."""
        if self.mounted is not None and self.mounted.sealed:
            # Entries serve, and need no repair as long as no program can change them.
            if self._refused:
                return f"{self.mounted.directory}: {how_to_open(self.mounted.directory)}"
        elif self.mounted is not None and self.mounted.read_only:
            where = self.mounted.directory
            return f"{where} is mounted read-only: run `mount -o remount,bind,rw {where}`"
        if self.mounted is not None and self.mounted.host_unmounted:
            return (
                f"{self.mounted.directory}: the host has unmounted binfmt_misc, and the entries end with this mount "
                f"namespace: run `mount -t binfmt_misc binfmt_misc {DEFAULT_DIRECTORY}` on the host, which keeps them, "
                "and then start this anew"
            )
        if self._watch.exhausted:
            return f"{self._watch.exhausted}; until then it looks about once a second"
        return None
