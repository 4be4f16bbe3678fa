"""When a requested reload may read the config: not while somebody is writing it.

An empty config means "all", so a file that is truncated and then written must not be read in between.  Pure: the times
(monotonic, in seconds) are handed in.
"""

from collections.abc import Callable
from typing import NamedTuple

from binfmtd.model.config import Config

CONFIG_AGE = 0.2  # seconds that the config must have been left alone
PATIENCE = 2.0  # seconds after which it is read all the same


class ConfigSource(NamedTuple):
    """Where the config comes from; handed in, so that the daemon knows neither files nor TOML."""

    load: Callable[[], Config]  # raises ConfigError
    age: Callable[[], float]  # seconds since somebody last changed it
    watched: Callable[[], dict[str, set[str]]]  # directory -> names whose change means another config


class ReloadRequest:
    """The open request, if there is one."""

    def __init__(self) -> None:
        self.due_at = float("inf")
        self._since: float | None = None

    def make(self, now: float) -> None:
        """Ask for a reload; one that is open already stays the same one."""
        self.due_at = now
        self._since = now if self._since is None else self._since

    def take(self, now: float, config_age: float) -> bool:
        """Whether to read the config now; its age is in seconds since it last changed."""
        if self._since is None or now < self.due_at:
            return False
        if 0 <= config_age < CONFIG_AGE and now - self._since < PATIENCE:
            self.due_at = now + CONFIG_AGE - config_age
            return False
        self.due_at, self._since = float("inf"), None
        return True
