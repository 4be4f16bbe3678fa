"""The watches on the config's files, for ``reload_on_change``: a thread finds the files and arms the watches."""

from collections.abc import Callable, Collection

from binfmtd.daemon.background import Background
from binfmtd.daemon.events import WatchKind
from binfmtd.daemon.inotify import Armed, InotifyWatcher

KEY = "config's files"


class ConfigWatch:
    """The watches on each link on the way to a config file, and on each included directory."""

    def __init__(
        self,
        background: Background,
        watch: InotifyWatcher,
        files: Callable[[], dict[str, set[str]]],
        unwatched: Callable[[Collection[str]], None],
        changed: Callable[[], None],
    ) -> None:
        """``files`` returns directory -> names to watch; ``unwatched`` gets directories that cannot be watched.

        ``changed`` is called if a file may have changed between ``Watch.arm_all`` and ``Watch.use``.
        """
        self._background = background
        self._watch = watch
        self._files = files
        self._unwatched = unwatched
        self._changed = changed

    @property
    def arming(self) -> bool:
        """True if a thread is arming the watches, or is about to."""
        return self._background.busy(KEY)

    def arm(self, *, wanted: bool) -> None:
        """Watch the files that the config has now, or none if no watches are ``wanted``."""

        def use(armed: Armed) -> None:
            changed = self._watch.use(WatchKind.CONFIG, armed)
            self._unwatched(armed.unwatched)
            if changed:
                self._changed()

        if wanted or self.arming:
            find = self._files if wanted else dict
            self._background.run(KEY, lambda: self._watch.arm_all(find), use)
        else:
            self._watch.use(WatchKind.CONFIG, Armed())
