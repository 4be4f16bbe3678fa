"""A module that is loaded when it is first used, not when another module imports it.

structlog imports asyncio for methods of its loggers that await, and uuid for loggers of threads; the daemon uses
neither.  Without them it starts sooner, and takes less memory, above all since asyncio loads OpenSSL.
"""

import importlib
import sys
from threading import Lock
from types import ModuleType
from typing import Any

_lock = Lock()


class LateModule(ModuleType):
    """Stands for a module in ``sys.modules``; the first use of one of its names loads the module itself."""

    def __getattr__(self, name: str) -> Any:
        """Return a name of the module itself.  Raises AttributeError and ImportError as that does."""
        with _lock:
            if sys.modules.get(self.__name__) is self:
                del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def import_late(*names: str) -> None:
    """Let all imports of these modules succeed at once, and load each when it is first used."""
    for name in names:
        sys.modules.setdefault(name, LateModule(name))
