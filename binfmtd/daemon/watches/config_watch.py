"""The watches on the config's files, for ``reload_on_change``: a thread finds the files and arms the watches."""

from collections.abc import Callable, Collection

from binfmtd.daemon.background import Background
from binfmtd.daemon.config_source import ConfigSource
from binfmtd.daemon.watches.armed import Armed
from binfmtd.daemon.watches.events import WatchKind
from binfmtd.daemon.watches.inotify import InotifyWatcher

KEY = "config's files"


class ConfigWatch:
    """The watches on each link on the way to a config file, and on each included directory."""

    def __init__(
        self,
        background: Background,
        watch: InotifyWatcher,
        source: ConfigSource,
        unwatched: Callable[[Collection[str]], None],
        changed: Callable[[], None],
    ) -> None:
        """``unwatched`` gets directories that cannot be watched.

        ``changed`` is called if a file may have changed before it was watched.
        """
        self._background = background
        self._watch = watch
        self._source = source
        self._unwatched = unwatched
        self._changed = changed

    @property
    def arming(self) -> bool:
        """True if a thread is arming the watches, or is about to."""
        return self._background.busy(KEY)

    @property
    def incomplete(self) -> bool:
        """True if some watches are missing, since the kernel had none left."""
        return WatchKind.CONFIG in self._watch.incomplete

    def arm(self, *, wanted: bool, began: float | None = None) -> None:
        """Watch the files that the config has now, or none if no watches are ``wanted``.

        ``began``: when the last reading of the config began, in seconds since the boot; None if one is under way.
        """

        def arm_all() -> tuple[Armed, bool]:
            armed = self._watch.arm_all(self._source.watched if wanted else dict)
            return armed, wanted and began is not None and self._source.changed_since(began)

        def use(result: tuple[Armed, bool]) -> None:
            armed, changed = result
            changed |= self._watch.use(WatchKind.CONFIG, armed)
            self._unwatched(armed.unwatched)
            if changed:
                self._changed()

        if wanted or self.arming:
            self._background.run(KEY, arm_all, use)
        else:
            self._watch.use(WatchKind.CONFIG, Armed())
