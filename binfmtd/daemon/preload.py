"""The modules that the daemon imports only where they are used, loaded once it is ready.

An upgrade replaces the files of a package under a running daemon.  A reload that needed a module which is not loaded
yet would then find another version of it, or none.  A thread loads them, so that neither the start nor a repair waits
for pydantic.
"""

import gc
import importlib
from collections.abc import Callable

MODULES = (
    "binfmtd.config.parse",
    "binfmtd.daemon.http_answer",
    "binfmtd.daemon.http_server",
    "binfmtd.daemon.textfile",
    "binfmtd.files.trust",
    "binfmtd.kernel.namespace",
    "binfmtd.kernel.native",
    "binfmtd.kernel.syscalls",
    "binfmtd.report.page",
    "difflib",
    "hashlib",
    "pwd",
    "shutil",
    "subprocess",
    "tomllib",
    "unicodedata",
)
OPTIONAL = ("binfmtd.report.metrics",)  # it takes prometheus_client, and HTTP says if that is not installed
REMEDY = "binfmtd's files, or those of a package that it needs, were replaced while it ran: restart the daemon"


def preload(failed: Callable[[str], None]) -> bool:
    """Load them all, in a thread; False if that is to be tried again, for want of descriptors or memory.

    ``failed`` is called with the reason why a module cannot be loaded.
    """
    gc.disable()  # a collection in between would go through all that was loaded
    try:
        for module in MODULES + OPTIONAL:
            try:
                importlib.import_module(module)
            except ImportError as error:
                if module not in OPTIONAL:
                    failed(cannot_load(error))
    except (OSError, MemoryError):
        return False
    finally:
        gc.freeze()  # it is no garbage, and a collection in a repair need not look through it
        gc.enable()
    return True


def cannot_load(error: ImportError) -> str:
    """Return one line for a module that cannot be loaded."""
    return f"{error}: {REMEDY}"
