"""The modules that the daemon imports only where they are used, loaded once it is ready.

An upgrade replaces the files of a package while the daemon runs.  A reload that needs a module which is not loaded yet
would then find another version of it, or none.  A thread loads them all, so that neither the start nor a repair waits
for them.

What reads config files (pydantic), and what publishes metrics (prometheus_client, http.server), would double the
daemon's memory.  These modules are loaded with the first config that needs them.  If the package has been replaced by
then, that config is rejected, or its metrics are, with a request to restart the daemon (``files.package``).  hashlib,
which loads OpenSSL, serves the names of stand-ins with more than 255 bytes; only a config file declares such handlers.
"""

import gc
import importlib
from collections.abc import Callable

MODULES = (
    "binfmtd.daemon.state_files.other_daemons",
    "binfmtd.files.trust",
    "binfmtd.formats.apparmor",
    "binfmtd.host.sandbox",
    "binfmtd.host.native",
    "binfmtd.formats.store_manifest",
    "binfmtd.host.security_modules",
    "binfmtd.host.syscalls",
    "binfmtd.kernel.mount_layers",
    "difflib",
    "pwd",
    "shutil",
    "subprocess",
    "unicodedata",
)
LATER = (
    "binfmtd.config.parse",
    "binfmtd.daemon.metrics.http_answer",
    "binfmtd.daemon.metrics.http_server",
    "binfmtd.daemon.metrics.textfile",
    "binfmtd.report.metrics",
    "binfmtd.report.page",
    "hashlib",
    "tomllib",
)
REMEDY = "binfmtd's files, or those of a package that it needs, were replaced while it ran: restart the daemon"


def preload(failed: Callable[[str], None]) -> bool:
    """Load all modules, in a thread; return False if descriptors or memory ran out: then it has to be tried again.

    ``failed`` is called with the reason why a module cannot be loaded.
    """
    gc.disable()  # a collection would scan everything loaded so far
    try:
        for module in MODULES:
            try:
                importlib.import_module(module)
            except (OSError, MemoryError):
                return False
            except Exception as error:  # noqa: BLE001  a half-replaced package can raise anything; repairs go on
                failed(cannot_load(error))
    finally:
        gc.freeze()  # the modules are no garbage, so a collection in a repair need not scan them
        gc.enable()
    return True


def cannot_load(error: Exception) -> str:
    """Return the reason why a module cannot be loaded, and the remedy, in one line."""
    return f"{' '.join(str(error).split())}: {REMEDY}"
