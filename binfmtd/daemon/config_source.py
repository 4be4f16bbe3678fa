"""Reading the config, but not while another program is writing it.

An empty config means "all".  So a file that a program truncates and then writes must not be read in between: the daemon
waits until the files have not changed for CONFIG_AGE seconds.
"""

import sys
import time
from collections.abc import Callable
from typing import NamedTuple

from binfmtd.daemon.preload import cannot_load
from binfmtd.daemon.state_files.pause_file import since_boot
from binfmtd.errors import ConfigError
from binfmtd.model.config import Config

CONFIG_AGE = 0.2  # seconds without a change before the config is read
PATIENCE = 2.0  # seconds after which it is read in any case
_PARSER = "binfmtd.config.parse"  # loaded with the first config file
_TICK = 0.01  # seconds: the kernel takes a file's time of change from a clock that ticks at least 100 times a second


class ReadConfig(NamedTuple):
    """The config or the error, and when the reading began: seconds since the boot."""

    config: Config | ConfigError
    began: float


class ConfigSource(NamedTuple):
    """The functions that read the config; the caller passes them, so the daemon depends on neither files nor TOML."""

    load: Callable[[], Config]  # raises ConfigError
    age: Callable[[], float]  # seconds since it was last changed
    watched: Callable[[], dict[str, set[str]]]  # directory -> names in it whose change may change the config
    began: float  # seconds since the boot: when the reading of the config began that is in force at the start

    def changed_since(self, began: float) -> bool:
        """Return True if the config may have changed since a reading began; False if its age is unknown or negative."""
        return 0 < self.age() < since_boot() - began + _TICK

    def load_when_quiet(self) -> ReadConfig:
        """Wait until the config has not changed for CONFIG_AGE seconds, PATIENCE seconds at most, and read it.

        A thread calls this, since it waits and reads files.  The result contains a ConfigError if that fails.
        """
        give_up = time.monotonic() + PATIENCE
        while 0 <= (age := self.age()) < CONFIG_AGE and time.monotonic() < give_up:
            time.sleep(CONFIG_AGE - age)
        began = since_boot()  # before the files are read: `binfmtd reload` accepts a reload that began after its signal
        try:
            return ReadConfig(self.load(), began)
        except ConfigError as error:
            return ReadConfig(error, began)
        except (ImportError, SystemError) as error:  # SystemError: pydantic-core is of another version than pydantic
            return ReadConfig(ConfigError(cannot_load(error)), began)
        except Exception as error:
            if _PARSER in sys.modules:
                raise
            return ReadConfig(ConfigError(cannot_load(error)), began)  # a half-replaced pydantic can raise anything
