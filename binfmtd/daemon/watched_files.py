"""The files that decide what is to be done.

Where interpreters are or would appear, the config if it asks for that, and what others write in the state directory.
"""

from collections.abc import Callable, Mapping

from binfmtd.daemon.facts import paths_of
from binfmtd.daemon.reporter import Reporter
from binfmtd.daemon.watch import Watch
from binfmtd.kernel.interpreters import watched
from binfmtd.model.config import Config

CALM = 1.0  # seconds: who replaces one file after the other is waited for


class WatchedFiles:
    """What is watched changes with the config, with each link in a chain, and with who serves in our place."""

    def __init__(
        self,
        watch: Watch,
        config_files: Callable[[], dict[str, set[str]]],
        state_files: Mapping[str, Mapping[str, set[str]]],
        report: Reporter,
    ) -> None:
        """``config_files`` tells the names to watch in each directory for `reload_on_change`.

        ``state_files`` are those of the state directory that others write, likewise, by their kind.
        """
        self.changed = True  # something happened to one: they have to be looked at anew, before the next pass
        self._watch = watch
        self._config_files = config_files
        self._state_files = state_files
        self._report = report
        self._providers: list[str] = []
        self._arrived_at = float("-inf")

    def first_in_a_while(self, now: float) -> bool:
        """An interpreter was put in its place; whether none was for some time before."""
        before, self._arrived_at = self._arrived_at, now
        return now - before >= CALM

    def arm(self, config: Config) -> None:
        """Watch them as they are now."""
        paths = [*paths_of(config), *self._providers]
        directories = watched(paths)
        unwatched = self._watch.watch_files("interpreters", directories)
        if (now := watched(paths)) != directories:  # something moved between the walk and the watch
            unwatched = self._watch.watch_files("interpreters", now)
            self.changed |= watched(paths) != now  # it moves all the time: once more when it is quiet
        wanted = self._config_files() if config.policy.reload_on_change else {}
        unwatched += self._watch.watch_files("config", wanted)
        for kind, names in self._state_files.items():
            unwatched += self._watch.watch_files(kind, names)
        self._report.unwatched(unwatched)

    def serve_in_our_place(self, providers: list[str], config: Config) -> bool:
        """Watch the interpreters of foreign entries that serve in our place, too; True if they are others now."""
        if providers == self._providers:
            return False
        self._providers = providers
        self.arm(config)
        return True
