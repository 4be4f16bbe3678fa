"""Where the config comes from, and when it may be read: not while another program is writing it.

An empty config means "all", so a file that is truncated and then written must not be read in between.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

from binfmtd.daemon.pause_file import since_boot
from binfmtd.daemon.preload import cannot_load
from binfmtd.errors import ConfigError
from binfmtd.model.config import Config

CONFIG_AGE = 0.2  # seconds that the config must have been left alone
PATIENCE = 2.0  # seconds after which it is read all the same


class ReadConfig(NamedTuple):
    """What came of reading, and when that began: seconds since the boot."""

    config: Config | ConfigError
    began: float


class ConfigSource(NamedTuple):
    """Handed in, so that the daemon knows neither files nor TOML."""

    load: Callable[[], Config]  # raises ConfigError
    age: Callable[[], float]  # seconds since it was last changed
    watched: Callable[[], dict[str, set[str]]]  # directory -> names whose change means another config

    def load_when_quiet(self) -> ReadConfig:
        """Read the config when it has not been changed for a while; in a thread, as it waits and reads files."""
        give_up = time.monotonic() + PATIENCE
        while 0 <= (age := self.age()) < CONFIG_AGE and time.monotonic() < give_up:
            time.sleep(CONFIG_AGE - age)
        began = since_boot()  # before the files are read: `binfmtd reload` tells by it which reload answers it
        try:
            return ReadConfig(self.load(), began)
        except ConfigError as error:
            return ReadConfig(error, began)
        except ImportError as error:
            return ReadConfig(ConfigError(cannot_load(error)), began)
