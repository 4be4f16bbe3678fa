"""The modules that the daemon imports only where they are used, loaded once it is ready.

An upgrade replaces the files of a package while the daemon runs.  A reload that needs a module which is not loaded yet
would then find another version of it, or none.  A thread loads them all, so that neither the start nor a repair waits
for pydantic.
"""

import gc
import importlib
from collections.abc import Callable

MODULES = (
    "binfmtd.config.parse",
    "binfmtd.daemon.metrics.http_answer",
    "binfmtd.daemon.metrics.http_server",
    "binfmtd.daemon.metrics.textfile",
    "binfmtd.daemon.state_files.other_daemons",
    "binfmtd.files.trust",
    "binfmtd.formats.apparmor",
    "binfmtd.host.sandbox",
    "binfmtd.host.native",
    "binfmtd.formats.store_manifest",
    "binfmtd.host.security_modules",
    "binfmtd.host.syscalls",
    "binfmtd.kernel.mount_layers",
    "binfmtd.report.page",
    "difflib",
    "hashlib",
    "pwd",
    "shutil",
    "subprocess",
    "tomllib",
    "unicodedata",
)
OPTIONAL = ("binfmtd.report.metrics",)  # needs prometheus_client; if that is missing, HTTP answers with the remedy
REMEDY = "binfmtd's files, or those of a package that it needs, were replaced while it ran: restart the daemon"


def preload(failed: Callable[[str], None]) -> bool:
    """Load all modules, in a thread; return False if descriptors or memory ran out: then it has to be tried again.

    ``failed`` is called with the reason why a module cannot be loaded.
    """
    gc.disable()  # a collection would scan everything loaded so far
    try:
        for module in MODULES + OPTIONAL:
            try:
                importlib.import_module(module)
            except (OSError, MemoryError):
                return False
            except Exception as error:  # noqa: BLE001  a half-replaced package can raise anything; repairs go on
                if module not in OPTIONAL:
                    failed(cannot_load(error))
    finally:
        gc.freeze()  # the modules are no garbage, so a collection in a repair need not scan them
        gc.enable()
    return True


def cannot_load(error: Exception) -> str:
    """Return the reason why a module cannot be loaded, and the remedy, in one line."""
    return f"{' '.join(str(error).split())}: {REMEDY}"
