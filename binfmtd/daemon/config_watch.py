"""Watching the config's files, for ``reload_on_change``: which they are is found out by a thread."""

from collections.abc import Callable, Collection

from binfmtd.daemon.background import Background
from binfmtd.daemon.watch import Armed, Watch

KEY = "config's files"


class ConfigWatch:
    """The watches follow each link on the way to a file, and each directory that is included."""

    def __init__(
        self,
        background: Background,
        watch: Watch,
        files: Callable[[], dict[str, set[str]]],
        unwatched: Callable[[Collection[str]], None],
        changed: Callable[[], None],
    ) -> None:
        """``files`` returns the names to watch in each directory; ``unwatched`` gets what cannot be watched.

        ``changed`` is called if a file may have changed between the arming of its watch and its use.
        """
        self._background = background
        self._watch = watch
        self._files = files
        self._unwatched = unwatched
        self._changed = changed

    @property
    def arming(self) -> bool:
        """Tell if a thread is at work with watches."""
        return self._background.busy(KEY)

    def arm(self, *, wanted: bool) -> None:
        """Watch the files as they are now, or none of them."""
        unknown = self._watch.unknown

        def use(armed: Armed) -> None:
            self._watch.use("config", armed.names)
            self._unwatched(armed.unwatched)
            if self._watch.unknown != unknown:
                self._changed()

        if wanted or self.arming:
            find = self._files if wanted else dict
            self._background.run(KEY, lambda: self._watch.arm_all(find), use)
        else:
            self._watch.use("config", {})
